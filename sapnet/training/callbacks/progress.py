"""Progress of a training in generator steps, as a bar or as lines of a log.

Lightning's own progress bar counts the steps of all optimizers.
"""

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from sapnet.evaluation.progress import duration
from sapnet.training.callbacks.generator_steps import generator_steps

#: Label and format of the metrics shown.
_METRICS = {"train/loss": ("loss", "{:.4f}"), "val/psnr": ("val PSNR", "{:.2f} dB")}


class StepProgress(ProgressBar):
    """Progress bar: steps done, steps per second, time left, last loss and validation PSNR, on standard error.

    The time of validations, with their pictures and checkpoints, does not count for the steps per second.

    If standard error is not a terminal (a log file, a cluster job), lines are printed at intervals and after each
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
        self._first_step, self._printed_step = 0, -1
        self._start = self._last = 0.0
        #: Seconds of all complete validations, and the beginning of the present one.
        self._validated = 0.0
        self._validation_start: float | None = None

    def disable(self) -> None:
        """Show nothing, as Lightning requests on all processes except the first."""
        self._enabled = False

    def enable(self) -> None:
        """Undo `disable`."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The steps before a resume do not count for the speed.
        self._first_step = generator_steps(pl_module)
        self._start = self._last = time.monotonic()
        self._validated, self._validation_start = 0.0, None
        if self._enabled and sys.stderr.isatty():
            self._bar = tqdm(
                desc="training",
                total=self._steps,
                initial=self._first_step,
                unit="step",
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._validation_start is not None:
            self._validated += time.monotonic() - self._validation_start
            self._validation_start = None
            if self._bar is not None:
                self._bar.unpause()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(generator_steps(pl_module) - self._bar.n)
            if now - self._last >= 1.0:  # reading the loss synchronises with the device
                self._bar.set_postfix_str(", ".join(_metrics(trainer)))
                self._last = now
        elif now - self._last >= self._every:
            self._print_line(trainer, generator_steps(pl_module))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_start = time.monotonic()
        if self._bar is not None:
            self._bar.set_description("validating")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bar is not None:
            self._bar.set_description("training")
            self._bar.set_postfix_str(", ".join(_metrics(trainer)))
        elif self._start and not trainer.sanity_checking:
            self._print_line(trainer, generator_steps(pl_module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A validation after the last step has already printed the line.
        if self._bar is None and self._printed_step != generator_steps(pl_module):
            self._print_line(trainer, generator_steps(pl_module))
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print_line(self, trainer: pl.Trainer, step: int) -> None:
        if not self._enabled:
            return
        self._printed_step, self._last = step, time.monotonic()
        seconds = self._last - self._start
        running = 0.0 if self._validation_start is None else self._last - self._validation_start
        line = progress_line(step, self._first_step, self._steps, seconds, self._validated + running)
        print(", ".join([line, *_metrics(trainer)]), file=sys.stderr, flush=True)


def progress_line(step: int, first_step: int, steps: int, seconds: float, validating: float = 0.0) -> str:
    """Describe the progress of a run.

    Args:
        step: Current step.
        first_step: Step at which this process started.
        steps: Steps of the whole run.
        seconds: Time from `first_step` to `step`.
        validating: Part of this time that validations took. The speed is that of the training alone; the time left
            contains further validations.
    """
    parts = [f"step {step}/{steps} ({100 * step // max(1, steps)}%)"]
    done = step - first_step
    if done > 0 and seconds > validating:
        parts.append(f"{done / (seconds - validating):.3g} steps/s")
        left = (steps - step) * seconds / done
        parts.append(f"{duration(left)} left" if step < steps else f"{duration(seconds)} in all")
    return ", ".join(parts)


def _metrics(trainer: pl.Trainer) -> list[str]:
    values = trainer.callback_metrics
    return [f"{label} {form.format(values[key].item())}" for key, (label, form) in _METRICS.items() if key in values]
