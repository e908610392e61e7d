"""Training of a restoration network: one step, one loss per stage, validation by PSNR."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sapnet.errors import UserError
from sapnet.evaluation.metrics import PSNR
from sapnet.training.checkpoints import stamp
from sapnet.training.losses import StageLoss
from sapnet.training.phases import Phase, make_phases
from sapnet.training.schedules import enter_at

MakeOptimizer = Callable[[Sequence[nn.Parameter]], Optimizer]
#: Takes the optimizer and how many steps it will take in each phase.
MakeScheduler = Callable[[Optimizer, Sequence[int]], LRScheduler]

#: What logs call the optimizers.
_NAMES = ("generator", "policy")
#: Validation images kept for the panel.
PANEL_IMAGES = 4


class RestorationModule(pl.LightningModule):
    """Trains any network that maps blurred images to a list of stage outputs.

    Optimization is manual, so that a module with a second optimizer adds its loss and its optimizer and changes
    nothing else: override :meth:`losses` and :meth:`parameter_groups`. Steps are counted by ``generator_steps``;
    Lightning's ``global_step`` counts the steps of all optimizers together.

    Args:
        network: ``network(blurred) -> [OP_1, ..., OP_K]``.
        loss: What to minimise.
        optimizer: Makes the optimizer of a parameter list.
        scheduler: Makes its learning-rate schedule, stepped with it; None for a constant rate.
        clip_norm: Bound of the gradient norm per optimizer; None for none.
        model: The configuration that built the network, as plain data; a checkpoint carries it.
        steps: Generator steps of the whole run, for the schedules.
        stagewise: When each stage begins to learn on the fixed ones before it, in shares of the steps; empty: all
            stages learn together (`sapnet.training.phases`).
        network_name: What a user calls the network; a checkpoint carries it for the lines of results.

    Raises:
        UserError: The network has no stages to learn one after another, or not as many.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: StageLoss,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler | None = None,
        clip_norm: float | None = None,
        model: Mapping[str, Any] | None = None,
        steps: int = 1,
        stagewise: Sequence[float] = (),
        network_name: str | None = None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.network, self.loss = network, loss
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.clip_norm = clip_norm
        self.model, self.steps, self.network_name = dict(model or {}), steps, network_name
        self.phases = make_phases(steps, stagewise, _stages_of(network) if stagewise else None)
        self.generator_steps = 0
        #: The resolved configuration of the run, as plain data; a checkpoint carries it.
        self.run_config: dict[str, Any] | None = None
        #: Whether the weights that the training started from were chosen on test images.
        self.chosen_on_test = False
        self.validation_samples: list[dict[str, Any]] = []
        #: Metrics of the validation by their logged names. The first validation fills it: the number of stages is not
        #: known before.
        self.validation_metrics = nn.ModuleDict()

    def forward(self, blurred: Tensor) -> list[Tensor]:
        """Return the stage outputs."""
        return self.network(blurred)

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each optimizer; the generator's come first."""
        return [list(self.network.parameters())]

    @property
    def phase(self) -> Phase:
        """Present phase of the training."""
        return next((p for p in self.phases if self.generator_steps < p.end), self.phases[-1])

    def restoration(self, outputs: Sequence[Tensor], sharp: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the restoration loss of the stages that learn, and the scalars of all to log."""
        per_stage = self.loss.per_stage(outputs, sharp)
        total = self.loss.combine(per_stage[self.phase.stages[0] if self.phase.stages else 0 :])
        logs = {f"train/loss_{k}": value.detach() for k, value in enumerate(per_stage, start=1)}
        return total, {"train/loss": total.detach(), **logs}

    def losses(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise by all optimizers together, and the scalars to log."""
        limits = {} if self.phase.stages is None else {"stages": self.phase.stages}
        return self.restoration(self.network(batch["blurred"], **limits), batch["sharp"])

    def evaluation_outputs(self, batch: Mapping[str, Any]) -> dict[str, list[Tensor]]:
        """Return the stage outputs to validate, by a suffix of the metric's name; the first are the result."""
        return {"": self.network(batch["blurred"])}

    def configure_optimizers(self):
        """Make one optimizer and schedule per parameter group."""
        optimizers, schedulers = self._fresh_optimizers()
        return (optimizers, schedulers) if schedulers else optimizers

    def _fresh_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
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
        """Return how many steps an optimizer takes in each phase."""
        return [phase.steps for phase in self.phases]

    def steps_taken(self, number: int) -> int:
        """Return how many steps an optimizer has taken at the present generator step."""
        return self.generator_steps

    def steps_now(self, number: int) -> bool:
        """Return whether an optimizer takes part in the present step."""
        return True

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Take one backward pass and one step of every optimizer that takes part."""
        total, logs = self.losses(batch)
        optimizers = _as_list(self.optimizers())
        schedulers = _as_list(self.lr_schedulers()) or [None] * len(optimizers)
        # As a list: a wrong number of any of them raises before anything has changed.
        parts = list(zip(_NAMES[: len(optimizers)], optimizers, schedulers, self.parameter_groups(), strict=True))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        # One backward for all: parameters are disjoint, and two would fail under DDP.
        self.manual_backward(total)
        for i, (name, optimizer, scheduler, parameters) in enumerate(parts):
            if not self.steps_now(i):
                continue
            bound = float("inf") if self.clip_norm is None else self.clip_norm
            logs[f"train/grad_norm_{name}"] = nn.utils.clip_grad_norm_(parameters, bound).detach()
            logs[f"lr_{name}"] = torch.tensor(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
        self.generator_steps += 1
        self.log_dict({**logs, "generator_steps": float(self.generator_steps)})
        return total.detach()

    def on_fit_start(self) -> None:
        """Check that stages do not learn one after another in several processes.

        Raises:
            UserError: They do: DistributedDataParallel wants a gradient of every parameter at every step.
        """
        if len(self.phases) > 1 and self.trainer.world_size > 1:
            raise UserError("stagewise trains in one process alone: set trainer.devices=1, or leave stagewise out.")

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation's pictures."""
        self.validation_samples = []

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Update the mean PSNR over images of the input and of every stage."""
        blurred, sharp = batch["blurred"], batch["sharp"]
        self._update_psnr("val/psnr_input", blurred, sharp)
        for suffix, outputs in self.evaluation_outputs(batch).items():
            stages = [self._update_psnr(f"val/psnr{suffix}_{k}", output, sharp) for k, output in enumerate(outputs, 1)]
            self.log(f"val/psnr{suffix}", stages[-1], metric_attribute="validation_metrics")
            if not suffix:
                count = min(len(blurred), PANEL_IMAGES - len(self.validation_samples))
                self.validation_samples += [self.panel_sample(batch, outputs, i) for i in range(count)]

    def _update_psnr(self, name: str, image: Tensor, sharp: Tensor) -> PSNR:
        if name not in self.validation_metrics:
            self.validation_metrics[name] = PSNR().to(self.device)
        metric = cast(PSNR, self.validation_metrics[name])
        metric.update(image, sharp)
        self.log(name, metric, metric_attribute="validation_metrics")
        return metric

    def on_validation_epoch_end(self) -> None:
        """Log the step that the validation belongs to."""
        self.log("generator_steps", float(self.generator_steps), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write what rebuilds the network and resumes the training."""
        data = getattr(self.trainer, "datamodule", None)
        on_test = self.chosen_on_test or getattr(data, "validate_on_test", False)
        stamp(checkpoint, self.model, self.generator_steps, on_test, network=self.network_name, config=self.run_config)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the count of steps; optimizers keep their state and take the present settings.

        Lightning restores the optimizers' and schedules' settings after this hook, so the stored ones are replaced
        here: the present learning rate, and the present schedule at the step that the training has reached.

        Raises:
            UserError: The checkpoint was written with another number of optimizers.
        """
        own = checkpoint["sapnet"]
        self.generator_steps, self.chosen_on_test = own["generator_steps"], bool(own.get("chosen_on_test"))
        optimizers, schedulers = self._fresh_optimizers()
        states = checkpoint["optimizer_states"]
        if len(states) != len(optimizers):
            raise UserError(
                f"the checkpoint holds the state of {len(states)} optimizer(s) and this training has {len(optimizers)}:"
                " use the settings it was trained with, or start from its weights alone with init_from."
            )
        for number, scheduler in enumerate(schedulers):
            enter_at(scheduler, self.steps_taken(number))
        for state, optimizer in zip(states, optimizers, strict=True):
            state["param_groups"] = optimizer.state_dict()["param_groups"]
        checkpoint["lr_schedulers"] = [scheduler.state_dict() for scheduler in schedulers]

    def panel_sample(self, batch: Mapping[str, Any], outputs: Sequence[Tensor], i: int) -> dict[str, Any]:
        """Return what a panel shows of image ``i`` of a validation batch."""
        sample = {key: batch[key][i].cpu() for key in ("blurred", "sharp", "extent") if key in batch}
        return sample | {"name": batch["name"][i], "outputs": [output[i].cpu() for output in outputs]}


def _stages_of(network: nn.Module) -> int:
    inner = getattr(network, "generator", network)
    hierarchy: Sequence | None = getattr(inner, "hierarchy", None)
    if hierarchy is None:
        raise UserError(f"stagewise: {type(inner).__name__} cannot learn stage by stage; leave it out.")
    return len(hierarchy)


def _as_list(value: Any) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) else [value]
