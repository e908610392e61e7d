"""Stop a training on NaN or infinite values."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from sapnet.checkpoints.files import load_checkpoint
from sapnet.errors import UserError
from sapnet.training.callbacks.generator_steps import generator_steps


class NanGuard(Callback):
    """Stop a training whose loss, weights or validation metrics are not finite, before they are saved.

    The loss is checked before the backward pass, so that the weights remain those of the last good step.

    Args:
        checkpoints: Folder of the run's checkpoints. The error message names the last good one.
    """

    def __init__(self, checkpoints: str | Path):
        self._checkpoints = Path(checkpoints)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Check the loss.

        Raises:
            UserError: The loss is NaN or infinite.
        """
        if not torch.isfinite(loss).all():
            problem = f"the loss is {loss.detach().float().mean().item()}"
            self._stop(trainer, pl_module, generator_steps(pl_module) + 1, problem)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the validation metrics. PSNR may be infinite.

        Raises:
            UserError: A metric is NaN.
        """
        for name, value in trainer.callback_metrics.items():
            if name.startswith("val/") and torch.isnan(value).any():
                self._stop(trainer, pl_module, generator_steps(pl_module), f"{name} is nan")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check the weights before they are saved.

        Raises:
            UserError: A weight is NaN or infinite.
        """
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                problem = f"{name} contains values that are not finite"
                self._stop(trainer, pl_module, generator_steps(pl_module), problem)

    def _stop(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, problem: str) -> None:
        group = trainer.optimizers[0].param_groups[0]
        lower = f"a lower learning rate (optim.optimizer.lr is {group.get('initial_lr', group['lr']):g})"
        last_good = last_good_checkpoint(self._checkpoints, generator_steps(pl_module))
        if last_good is None:
            advice = f"there is no good checkpoint: start again with {lower} or clipped gradients"
        else:
            name, saved_step = last_good
            file = self._checkpoints / f"{name}.ckpt"
            advice = (
                f"the last good checkpoint is {file} (step {saved_step}): resume from it (ckpt_path={name}) with"
                f" {lower} or clipped gradients"
            )
        raise UserError(f"Training stopped at generator step {step}: {problem}; {advice} (optim.clip_norm).")


def last_good_checkpoint(folder: Path, step: int) -> tuple[str, int] | None:
    """Return the newest checkpoint that was saved before a step.

    A checkpoint of the step itself contains the weights whose loss or validation is not finite.

    Returns:
        `last` or `best`, and the step of the checkpoint; None if there is no such checkpoint.
    """
    steps: dict[str, int] = {}
    for name in ("last", "best"):
        try:
            steps[name] = load_checkpoint(folder / f"{name}.ckpt")["sapnet"]["generator_steps"]
        except UserError:
            continue
    earlier = [(name, saved_step) for name, saved_step in steps.items() if saved_step < step]
    return max(earlier, key=lambda pair: pair[1], default=None)
