"""How a training run shows where it is, ends, and stops on numbers that are none: all in generator steps.

Lightning's own bar and `max_steps` count the steps of every optimizer. The callbacks here read `generator_steps` of the
module instead.
"""

import sys
import time
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ProgressBar
from torch import Tensor
from tqdm import tqdm

from sapnet.errors import UserError
from sapnet.training.checkpoints import load_checkpoint
from sapnet.training.restoration import RestorationModule

_SHOWN = {"train/loss": ("loss", "{:.4f}"), "val/psnr": ("val PSNR", "{:.2f} dB")}


class StepProgress(ProgressBar):
    """Steps done, steps per second, time left, the last loss and validation PSNR, on standard error.

    A terminal gets a bar. Elsewhere (a log file, a cluster's job) a line is printed now and then, and one after each
    validation.

    Args:
        steps: Generator steps of the whole run.
        every: Seconds between two lines.
    """

    def __init__(self, steps: int, every: float = 30.0):
        super().__init__()
        self._steps, self._every = steps, every
        self._enabled = True
        self._bar: tqdm | None = None
        self._first_step, self._told = 0, -1
        self._start = self._last = 0.0

    def disable(self) -> None:
        """Show nothing: on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a resumed run's earlier steps are not part of its speed."""
        self._first_step = _steps(pl_module)
        self._start = self._last = time.monotonic()
        if self._enabled and sys.stderr.isatty():
            self._bar = tqdm(
                desc="training",
                total=self._steps,
                initial=self._first_step,
                unit="step",
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, or print a line where one is due."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(_steps(pl_module) - self._bar.n)
            if now - self._last >= 1.0:  # reading the loss waits for the device
                self._bar.set_postfix_str(", ".join(_figures(trainer)))
                self._last = now
        elif now - self._last >= self._every:
            self._print_line(trainer, _steps(pl_module))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say so, since it may take a while."""
        if self._bar is not None:
            self._bar.set_description("validating")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the validation's PSNR."""
        if self._bar is not None:
            self._bar.set_description("training")
            self._bar.set_postfix_str(", ".join(_figures(trainer)))
        elif self._start and not trainer.sanity_checking:
            self._print_line(trainer, _steps(pl_module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar, or print the last line where a validation has not just done so."""
        if self._bar is None and self._told != _steps(pl_module):
            self._print_line(trainer, _steps(pl_module))
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the terminal in order."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print_line(self, trainer: pl.Trainer, step: int) -> None:
        if not self._enabled:
            return
        self._told, self._last = step, time.monotonic()
        line = progress_line(step, self._first_step, self._steps, self._last - self._start)
        print(", ".join([line, *_figures(trainer)]), file=sys.stderr, flush=True)


def _steps(module: pl.LightningModule) -> int:
    return cast(RestorationModule, module).generator_steps


def progress_line(step: int, first_step: int, steps: int, seconds: float) -> str:
    """Where a run is that started at `first_step`, took `seconds` to `step`, and ends at `steps`."""
    parts = [f"step {step}/{steps} ({100 * step // max(1, steps)}%)"]
    done = step - first_step
    if done > 0 and seconds > 0:
        speed = done / seconds
        parts.append(f"{speed:.3g} steps/s")
        parts.append(f"{duration((steps - step) / speed)} left" if step < steps else f"{duration(seconds)} in all")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A length of time in its two largest units: `40 s`, `3 min 20 s`, `5 h 10 min`, `2 d 4 h`."""
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    amounts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((place for place, (amount, _) in enumerate(amounts) if amount), 3)
    return " ".join(f"{amount} {unit}" for amount, unit in amounts[first : first + 2])


class StopAtSteps(Callback):
    """Ends training after `steps` generator steps, counted over all resumed parts of a run."""

    def __init__(self, steps: int):
        self._steps = steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End at once where the checkpoint has all steps already."""
        self._stop_when_done(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End after the last step."""
        self._stop_when_done(trainer, pl_module)

    def _stop_when_done(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _steps(pl_module) >= self._steps:
            trainer.should_stop = True


class NonFiniteGuard(Callback):
    """Stops a run whose loss, weights or validation are not finite, before a checkpoint of them is written.

    The loss is looked at before its backward pass, so that the weights stay those of the last good step.

    Args:
        checkpoints: Folder of the run's checkpoints, to name one to resume from.
    """

    def __init__(self, checkpoints: str | Path):
        self._checkpoints = Path(checkpoints)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Check the loss.

        Raises:
            UserError: it is infinite or no number.
        """
        if not torch.isfinite(loss).all():
            what = f"the loss is {loss.detach().float().mean().item()}"
            self._stop(trainer, pl_module, _steps(pl_module) + 1, what)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the validation, before `ModelCheckpoint` writes a checkpoint of it.

        Raises:
            UserError: A metric is no number. (PSNR may be infinite.)
        """
        for name, value in trainer.callback_metrics.items():
            if name.startswith("val/") and torch.isnan(value).any():
                self._stop(trainer, pl_module, _steps(pl_module), f"{name} is nan")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check the weights that are about to be saved.

        Raises:
            UserError: one is infinite or no number.
        """
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                what = f"{name} holds numbers that are not finite"
                self._stop(trainer, pl_module, _steps(pl_module), what)

    def _stop(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, what: str) -> None:
        group = trainer.optimizers[0].param_groups[0]
        lower = f"a lower learning rate (optim.optimizer.lr is {group.get('initial_lr', group['lr']):g})"
        good = last_good(self._checkpoints, _steps(pl_module))
        if good is None:
            way_out = f"no good checkpoint was written before: start again with {lower} or clipped gradients"
        else:
            word, good_step = good
            file = self._checkpoints / f"{word}.ckpt"
            way_out = (
                f"the last good checkpoint is {file} (step {good_step}): resume from it (ckpt_path={word}) with {lower}"
                " or clipped gradients"
            )
        raise UserError(f"Training stopped at generator step {step}: {what}; {way_out} (optim.clip_norm).")


def last_good(folder: Path, step: int) -> tuple[str, int] | None:
    """Return the newest checkpoint of a run that was written before a step, and its step.

    One that was written at the step holds the very weights whose loss or validation is not finite.

    Returns:
        `last` or `best`, and the checkpoint's step; None where there is none.
    """
    found: dict[str, int] = {}
    for word in ("last", "best"):
        try:
            found[word] = load_checkpoint(folder / f"{word}.ckpt")["sapnet"]["generator_steps"]
        except UserError:
            continue
    older = [(word, saved) for word, saved in found.items() if saved < step]
    return max(older, key=lambda pair: pair[1], default=None)


def _figures(trainer: pl.Trainer) -> list[str]:
    metrics = trainer.callback_metrics
    return [f"{word} {form.format(metrics[key].item())}" for key, (word, form) in _SHOWN.items() if key in metrics]
