"""Base class of the Lightning modules: inference, validation and test by PSNR and SSIM."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytorch_lightning as pl
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.evaluation.metrics import PSNR, ImageMean, SSIMMatlab3D
from sapnet.training.validation_scores import next_scores

#: Number of validation images in the panel.
PANEL_IMAGES = 4


class EvaluatedModule(pl.LightningModule):
    """Lightning module of a network whose outputs are measured stage by stage; means are over images.

    Args:
        network: Network with `network(blurred) -> [OP_1, ..., OP_K]`.

    Attributes:
        generator_steps: Generator steps taken so far.
        validation_scores: Last and best PSNR of the validations (`sapnet.training.validation_scores`); None before the
            first one; stored in checkpoints.
        validation_samples: First images of the last validation, with their outputs, for `PanelCallback`.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.generator_steps = 0
        self.validation_scores: dict[str, Any] | None = None
        self.validation_samples: list[dict[str, Any]] = []
        #: Name of the PSNR of the last stage.
        self._result_name = ""
        #: Metrics of validation and test by their logged names. The first batch fills it: the number of stages is not
        #: known before.
        self.validation_metrics = nn.ModuleDict()

    def forward(self, blurred: Tensor) -> list[Tensor]:
        """Return the stage outputs."""
        return self.network(blurred)

    def evaluation_outputs(self, batch: Mapping[str, Any]) -> dict[str, list[Tensor]]:
        """Return the stage outputs to validate, by the suffix of their metric names; the first is the result."""
        return {"": self.restored(batch)}

    def restored(self, batch: Mapping[str, Any]) -> list[Tensor]:
        """Return the stage outputs of inference for a batch with ground truth."""
        return self.network(batch["blurred"])

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

    def panel_sample(self, batch: Mapping[str, Any], outputs: Sequence[Tensor], i: int) -> dict[str, Any]:
        """Return the images of item `i` of a validation batch for the panel."""
        sample = {key: batch[key][i].cpu() for key in ("blurred", "sharp", "extent") if key in batch}
        return sample | {"name": batch["name"][i], "outputs": [output[i].cpu() for output in outputs]}
