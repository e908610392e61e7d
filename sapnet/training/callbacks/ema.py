"""Exponential moving average of the generator's weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sapnet.checkpoints.architecture import EMA
from sapnet.errors import UserError
from sapnet.training.restoration_module import RestorationModule


class EmaWeights(Callback):
    """Average the generator's weights over the training, beside the raw weights.

    After each generator step `t` (from 1), `average = d * average + (1 - d) * weights` with `d = min(decay, (1 + t) /
    (10 + t))`, so that a short training does not keep its initial weights. Policies are not averaged. The training
    itself does not change: the validation measures the average as `val/psnr_ema`, and checkpoints contain it under the
    key `ema`, from which a resumed training continues exactly. A training whose checkpoint has none starts the average
    there.

    The average is float32 whatever the precision of the weights. Buffers of floating point are averaged too.

    Args:
        decay: Share of the average that a step keeps, from 0 to below 1.

    Attributes:
        updates: Steps in the average.

    Raises:
        UserError: The decay is out of range.
    """

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay={decay}: give a number from 0 to below 1.")
        self._decay = decay
        self._average: dict[str, Tensor] = {}
        self.updates = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the average, or move the one of the checkpoint to the device."""
        weights = _weights(pl_module)
        if not self._average:
            self._average = {name: value.detach().float().clone() for name, value in weights.items()}
        self._average = {name: value.to(weights[name].device) for name, value in self._average.items()}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the weights of this step; a batch is one generator step."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        weights = _weights(pl_module)
        average = cast(Any, get_ema_multi_avg_fn(decay))
        average([self._average[name] for name in weights], [value.float() for value in weights.values()], self.updates)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Mapping[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the average on the images of a validation batch."""
        if not self._average:  # the sanity check before the training
            return
        module = cast(RestorationModule, pl_module)
        # The numbers drawn for the raw weights stay the same.
        with self.averaged(module), torch.random.fork_rng(_cuda_devices(module)):
            metric = module.update_psnr("val/psnr_ema", module.restored(batch)[-1], batch["sharp"])
        module.log("val/psnr_ema", metric, metric_attribute="validation_metrics")

    @contextmanager
    def averaged(self, module: pl.LightningModule) -> Iterator[None]:
        """Use the average as the weights of the generator."""
        weights = _weights(module)
        raw = {name: value.clone() for name, value in weights.items()}
        try:
            _copy(self._average, weights)
            yield
        finally:
            _copy(raw, weights)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average:
            checkpoint[EMA] = {"updates": self.updates, "decay": self._decay, "weights": dict(self._average)}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        state = checkpoint.get(EMA)
        if state is not None:
            self.updates = state["updates"]
            self._average = {name: value.float().clone() for name, value in state["weights"].items()}


def _weights(module: pl.LightningModule) -> dict[str, Tensor]:
    """Return the parameters and buffers of floating point that are averaged, by the names of the generator."""
    network = cast(RestorationModule, module).network
    generator = cast(nn.Module, getattr(network, "generator", network))
    return {name: value for name, value in generator.state_dict().items() if value.is_floating_point()}


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])


def _cuda_devices(module: pl.LightningModule) -> list[torch.device]:
    return [module.device] if module.device.type == "cuda" else []
