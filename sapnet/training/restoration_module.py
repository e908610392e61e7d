"""Lightning module of a restoration network: one loss per stage, validation by PSNR and SSIM."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sapnet.checkpoints.files import METADATA, add_metadata
from sapnet.checkpoints.network import network_from_checkpoint
from sapnet.errors import UserError
from sapnet.evaluation.metrics import PSNR, ImageMean, SSIMMatlab3D
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.training.losses import StageLoss
from sapnet.training.phases import Phase, make_phases
from sapnet.training.schedules import advance_to
from sapnet.training.validation_scores import next_scores

MakeOptimizer = Callable[[Sequence[nn.Parameter]], Optimizer]
#: Arguments: the optimizer, and its number of steps in each phase.
MakeScheduler = Callable[[Optimizer, Sequence[int]], LRScheduler]

#: The paper's optimizer (Sec. 4.1).
ADAM: MakeOptimizer = partial(torch.optim.Adam, lr=1e-4)
#: Names of the optimizers in the logs.
OPTIMIZERS = ("generator", "policy")
#: Number of validation images in the panel.
PANEL_IMAGES = 4


class RestorationModule(pl.LightningModule):
    """Lightning module of a network that maps blurred images to a list of stage outputs.

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
        generator_steps: Steps taken so far.
        run_config: Resolved configuration of the run, as plain dicts; stored in checkpoints.
        chosen_on_test: Whether the initial weights were chosen on test images.
        validation_scores: Last and best PSNR of the validations (`sapnet.training.validation_scores`); None before the
            first one; stored in checkpoints.
        validation_samples: First images of the last validation, with their outputs, for `PanelCallback`.

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
        super().__init__()
        self.automatic_optimization = False
        self.network, self.loss = network, loss or StageLoss()
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.clip_norm = clip_norm
        self.network_config, self.steps, self.network_name = dict(network_config or {}), steps, network_name
        self.phases = make_phases(steps, stagewise, _stage_count(network) if stagewise else None)
        self.generator_steps = 0
        self.run_config: dict[str, Any] | None = None
        self.chosen_on_test = False
        self.validation_scores: dict[str, Any] | None = None
        self.validation_samples: list[dict[str, Any]] = []
        #: Name of the PSNR of the last stage.
        self._result_name = ""
        #: Metrics of validation and test by their logged names. The first batch fills it: the number of stages is not
        #: known before.
        self.validation_metrics = nn.ModuleDict()

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

    def forward(self, blurred: Tensor) -> list[Tensor]:
        """Return the stage outputs."""
        return self.network(blurred)

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

    def evaluation_outputs(self, batch: Mapping[str, Any]) -> dict[str, list[Tensor]]:
        """Return the stage outputs to validate, by the suffix of their metric names; the first is the result."""
        return {"": self.restored(batch)}

    def restored(self, batch: Mapping[str, Any]) -> list[Tensor]:
        """Return the stage outputs of inference for a batch with ground truth."""
        return self.network(batch["blurred"])

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

    def on_validation_epoch_start(self) -> None:
        self.validation_samples = []

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Update the mean PSNR over images of the input and of every stage, and the mean SSIM of the last stage."""
        blurred, sharp = batch["blurred"], batch["sharp"]
        self.update_psnr("val/psnr_input", blurred, sharp)
        for suffix, outputs in self.evaluation_outputs(batch).items():
            stages = [self.update_psnr(f"val/psnr{suffix}_{k}", output, sharp) for k, output in enumerate(outputs, 1)]
            self.log(f"val/psnr{suffix}", stages[-1], metric_attribute="validation_metrics")
            if not suffix:
                self._result_name = f"val/psnr_{len(outputs)}"
                # One SSIM takes as long as five PSNRs.
                self._update(SSIMMatlab3D, "val/ssim", outputs[-1], sharp)
                count = min(len(blurred), PANEL_IMAGES - len(self.validation_samples))
                self.validation_samples += [self.panel_sample(batch, outputs, i) for i in range(count)]

    def update_psnr(self, name: str, image: Tensor, sharp: Tensor) -> ImageMean:
        """Update the mean PSNR over images that is logged under a name, and return the metric."""
        return self._update(PSNR, name, image, sharp)

    def _update(self, kind: type[ImageMean], name: str, image: Tensor, sharp: Tensor) -> ImageMean:
        if name not in self.validation_metrics:
            self.validation_metrics[name] = kind().to(self.device)
        metric = cast(Any, self.validation_metrics[name])
        metric.update(image, sharp)
        self.log(name, metric, metric_attribute="validation_metrics")
        return metric

    def on_validation_epoch_end(self) -> None:
        """Log the step of the validation and the best PSNR so far; its last value is the best of the run."""
        self.log("generator_steps", float(self.generator_steps), sync_dist=True)
        if self.trainer.sanity_checking or self._result_name not in self.validation_metrics:
            return
        psnr = float(cast(PSNR, self.validation_metrics[self._result_name]).compute())
        self.validation_scores = next_scores(self.validation_scores, psnr, self.generator_steps, self.trainer)
        self.log("val/psnr_best", self.validation_scores["psnr_best"], sync_dist=True)

    def on_test_start(self) -> None:
        """Check that the test images are measured as they are.

        Raises:
            UserError: Their protocol registers the images first.
        """
        if getattr(getattr(self.trainer, "datamodule", None), "protocol", "standard") != "standard":
            raise UserError(
                "these images are measured after registration: use sapnet evaluate instead of trainer.test."
            )

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Update PSNR and SSIM (`ssim_matlab3d`) of the input and of every stage, as `sapnet evaluate` does."""
        outputs = self.restored(batch)
        for name, kind in (("psnr", PSNR), ("ssim", SSIMMatlab3D)):
            self._update(kind, f"test/{name}_input", batch["blurred"], batch["sharp"])
            stages = [self._update(kind, f"test/{name}_{k}", x, batch["sharp"]) for k, x in enumerate(outputs, start=1)]
            self.log(f"test/{name}", stages[-1], metric_attribute="validation_metrics")

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Return the names and the restored images `[b, 3, h, w]` in [0, 1] of a batch."""
        return {"name": batch["name"], "restored": self.restored(batch)[-1].clamp(0, 1)}

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

    def panel_sample(self, batch: Mapping[str, Any], outputs: Sequence[Tensor], i: int) -> dict[str, Any]:
        """Return the images of item `i` of a validation batch for the panel."""
        sample = {key: batch[key][i].cpu() for key in ("blurred", "sharp", "extent") if key in batch}
        return sample | {"name": batch["name"][i], "outputs": [output[i].cpu() for output in outputs]}


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
