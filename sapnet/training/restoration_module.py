"""Lightning module that trains a restoration network with one loss per stage."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sapnet.checkpoints.files import METADATA, add_metadata
from sapnet.checkpoints.network import network_from_checkpoint
from sapnet.errors import UserError
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.training.evaluated_module import EvaluatedModule
from sapnet.training.losses import StageLoss
from sapnet.training.phases import Phase, make_phases
from sapnet.training.schedules import advance_to

MakeOptimizer = Callable[[Sequence[nn.Parameter]], Optimizer]
#: Arguments: the optimizer, and its number of steps in each phase.
MakeScheduler = Callable[[Optimizer, Sequence[int]], LRScheduler]

#: The paper's optimizer (Sec. 4.1).
ADAM: MakeOptimizer = partial(torch.optim.Adam, lr=1e-4)
#: Names of the optimizers in the logs.
OPTIMIZERS = ("generator", "policy")


class RestorationModule(EvaluatedModule):
    """Lightning module that trains a network which maps blurred images to a list of stage outputs.

    Optimization is manual, so that a subclass with a second optimizer only overrides `losses` and `parameter_groups`.
    Steps are counted by `generator_steps`; Lightning's `global_step` counts the steps of all optimizers.

    Args:
        network: Network with `network(blurred) -> [OP_1, ..., OP_K]`.
        loss: Loss to minimise; by default `StageLoss()`.
        optimizer: Creates the optimizer of a list of parameters; by default the paper's, `ADAM`.
        scheduler: Creates the learning-rate schedule of an optimizer; None for a constant rate.
        clip_norm: Maximum gradient norm of each optimizer; None for no clipping.
        network_config: Configuration that built the network, as plain dicts; stored in checkpoints.
        steps: Generator steps of the whole run.
        stagewise: For each stage the share of the steps at which it starts to learn, with the earlier stages fixed;
            empty to train all stages together (`sapnet.training.phases`).
        network_name: Name of the network in results; stored in checkpoints.

    Attributes:
        run_config: Resolved configuration of the run, as plain dicts; stored in checkpoints.
        chosen_on_test: Whether the initial weights were chosen on test images.

    Raises:
        UserError: `stagewise` does not fit the stages of the network.
    """

    #: Whether the class trains networks that sample.
    samples: ClassVar[bool] = False

    def __init__(
        self,
        network: nn.Module,
        loss: StageLoss | None = None,
        optimizer: MakeOptimizer = ADAM,
        scheduler: MakeScheduler | None = None,
        clip_norm: float | None = None,
        network_config: Mapping[str, Any] | None = None,
        steps: int = 1,
        stagewise: Sequence[float] = (),
        network_name: str | None = None,
    ):
        super().__init__(network)
        self.automatic_optimization = False
        self.loss = loss or StageLoss()
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.clip_norm = clip_norm
        self.network_config, self.steps, self.network_name = dict(network_config or {}), steps, network_name
        self.phases = make_phases(steps, stagewise, _stage_count(network) if stagewise else None)
        self.run_config: dict[str, Any] | None = None
        self.chosen_on_test = False

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path, map_location: Any = "cpu", *args: Any, ema: bool = False, **kwargs: Any
    ) -> "RestorationModule":
        """Build the module of a checkpoint of sapnet, without running code from the file.

        The network is that of the checkpoint. Loss, optimizer and schedule are not restored: name them to train it
        further. To resume a training, give the checkpoint to `Trainer.fit` instead.

        Args:
            checkpoint_path: File of the checkpoint.
            map_location: Device of the module.
            args: Further arguments of Lightning's method, which do not apply: files are always read with
                `weights_only=True` and compared strictly.
            ema: Whether to load the moving average of the generator's weights.
            kwargs: Arguments of the module, such as `loss`.

        Raises:
            UserError: The checkpoint cannot be used (`network_from_checkpoint`), or its network needs
                `PolicyGradientModule`.
        """
        network, info = network_from_checkpoint(checkpoint_path, ema)
        if isinstance(network, AdaptiveNetwork) and not cls.samples:
            raise UserError(f"{checkpoint_path}: its network samples: use PolicyGradientModule.load_from_checkpoint.")
        own = {"network_config": info.network_config, "network_name": info.network_name}
        module = cls(network, **({**own, "steps": max(1, info.generator_steps)} | kwargs))
        module.generator_steps, module.chosen_on_test = info.generator_steps, info.chosen_on_test
        return module.to(map_location)

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each optimizer, the generator first."""
        return [list(self.network.parameters())]

    @property
    def phase(self) -> Phase:
        """Current phase of the training."""
        return next((p for p in self.phases if self.generator_steps < p.end), self.phases[-1])

    def restoration_loss(self, outputs: Sequence[Tensor], sharp: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the restoration loss of the stages that learn, and the losses of all stages to log."""
        per_stage = self.loss.per_stage(outputs, sharp)
        total = self.loss.combine(per_stage[self.phase.stages[0] if self.phase.stages else 0 :])
        logs = {f"train/loss_{k}": value.detach() for k, value in enumerate(per_stage, start=1)}
        return total, {"train/loss": total.detach(), **logs}

    def losses(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss that all optimizers minimise, and the scalars to log."""
        limits = {} if self.phase.stages is None else {"stages": self.phase.stages}
        return self.restoration_loss(self.network(batch["blurred"], **limits), batch["sharp"])

    def configure_optimizers(self):
        """Create one optimizer and schedule per parameter group."""
        optimizers, schedulers = self._create_optimizers()
        return (optimizers, schedulers) if schedulers else optimizers

    def _create_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        optimizers = [self.make_optimizer(parameters) for parameters in self.parameter_groups()]
        for number, optimizer in enumerate(optimizers):
            for group in optimizer.param_groups:
                group["lr"] *= self.relative_rate(number)
        if self.make_scheduler is None:
            return optimizers, []
        return optimizers, [self.make_scheduler(o, self.optimizer_steps(i)) for i, o in enumerate(optimizers)]

    def relative_rate(self, number: int) -> float:
        """Return the learning rate of an optimizer relative to the configured one."""
        return 1.0

    def optimizer_steps(self, number: int) -> list[int]:
        """Return the number of steps of an optimizer in each phase."""
        return [phase.steps for phase in self.phases]

    def steps_taken(self, number: int) -> int:
        """Return the number of steps of an optimizer before the current generator step."""
        return self.generator_steps

    def is_active(self, number: int) -> bool:
        """Return whether an optimizer takes the current step."""
        return True

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Run one backward pass and one step of every active optimizer."""
        total, logs = self.losses(batch)
        optimizers = _as_list(self.optimizers())
        schedulers = _as_list(self.lr_schedulers()) or [None] * len(optimizers)
        # As a list, so that a wrong number of any of them raises before anything changes.
        parts = list(zip(OPTIMIZERS[: len(optimizers)], optimizers, schedulers, self.parameter_groups(), strict=True))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        # One backward pass for all: the parameters are disjoint, and DDP does not support two passes.
        self.manual_backward(total)
        for i, (name, optimizer, scheduler, parameters) in enumerate(parts):
            if not self.is_active(i):
                continue
            max_norm = float("inf") if self.clip_norm is None else self.clip_norm
            logs[f"train/grad_norm_{name}"] = nn.utils.clip_grad_norm_(parameters, max_norm).detach()
            logs[f"lr_{name}"] = torch.tensor(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
        self.generator_steps += 1
        self.log_dict({**logs, "generator_steps": float(self.generator_steps)})
        return total.detach()

    def on_fit_start(self) -> None:
        """Check that stagewise training uses one process.

        Raises:
            UserError: It uses several; DistributedDataParallel needs gradients of all parameters in every step.
        """
        if len(self.phases) > 1 and self.trainer.world_size > 1:
            raise UserError("stagewise needs a single process: set trainer.devices=1, or leave stagewise out.")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the metadata that rebuilds the network and resumes the training."""
        data = getattr(self.trainer, "datamodule", None)
        on_test = self.chosen_on_test or getattr(data, "validate_on_test", False)
        add_metadata(checkpoint, self.network_config, self.generator_steps, on_test, self.network_name, self.run_config)
        checkpoint[METADATA]["validation"] = self.validation_scores

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the step count, and give the stored optimizer states the current settings.

        Lightning restores the settings of optimizers and schedules after this hook. They are therefore replaced here by
        the current learning rate, and by the current schedule at the step of the checkpoint.

        Raises:
            UserError: The checkpoint has another number of optimizers.
        """
        metadata = checkpoint["sapnet"]
        self.generator_steps = metadata["generator_steps"]
        self.chosen_on_test = bool(metadata.get("chosen_on_test"))
        self.validation_scores = metadata.get("validation")
        optimizers, schedulers = self._create_optimizers()
        states = checkpoint["optimizer_states"]
        if len(states) != len(optimizers):
            raise UserError(
                f"the checkpoint has the state of {len(states)} optimizer(s) and this training has {len(optimizers)}:"
                " use the settings of the checkpoint, or load only its weights with init_from."
            )
        for number, scheduler in enumerate(schedulers):
            advance_to(scheduler, self.steps_taken(number))
        for state, optimizer in zip(states, optimizers, strict=True):
            state["param_groups"] = optimizer.state_dict()["param_groups"]
        checkpoint["lr_schedulers"] = [scheduler.state_dict() for scheduler in schedulers]


def _stage_count(network: nn.Module) -> int:
    generator = getattr(network, "generator", network)
    hierarchy: Sequence | None = getattr(generator, "hierarchy", None)
    if hierarchy is None:
        raise UserError(f"stagewise: {type(generator).__name__} cannot be trained stage by stage; leave it out.")
    return len(hierarchy)


def _as_list(value: Any) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) else [value]
