"""Saving checkpoints: `best.ckpt` by validation PSNR; `last.ckpt` at intervals, at the end and on signals."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from sapnet import interrupts
from sapnet.errors import UserError
from sapnet.interrupts import Interrupted
from sapnet.training.callbacks.generator_steps import generator_steps


class BestCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint` with a state that stays valid when the run folder is renamed or copied.

    The state contains file names instead of absolute paths. If the best checkpoint that it names is not in the folder
    of this run (a run that continues from a checkpoint of another run), the search for the best checkpoint restarts.

    Args:
        dirpath: Folder of the checkpoints; None for `checkpoints` in the run folder.
        filename: Name of the file without its ending. It may contain metrics, such as `{generator_steps:.0f}`.
        monitor: Metric of the validation.
        mode: `max` or `min`.
        save_top_k: Number of checkpoints to keep; -1 for all.
        kwargs: Further arguments of `ModelCheckpoint`.

    Raises:
        UserError: Several checkpoints would have the same name.
    """

    _PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str = "best",
        monitor: str = "val/psnr",
        mode: str = "max",
        save_top_k: int = 1,
        **kwargs: Any,
    ):
        if save_top_k not in (0, 1) and "{" not in filename:
            raise UserError(
                f"save_top_k={save_top_k} checkpoints cannot all be named {filename}.ckpt: use"
                f" callbacks=[default,top_k] callbacks.top_k.save_top_k={save_top_k}."
            )
        defaults = {"auto_insert_metric_name": False, "enable_version_counter": False}
        arguments: dict[str, Any] = {**defaults, "save_on_train_epoch_end": False, **kwargs}
        super().__init__(dirpath, filename, monitor=monitor, mode=mode, save_top_k=save_top_k, **arguments)

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint: for `best.ckpt` that of `ModelCheckpoint`, which earlier versions used."""
        key = super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)
        return key if self.filename == "best" else f"{key}{self.filename}"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = os.path.join(trainer.default_root_dir, "checkpoints")
        super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        names = {key: os.path.basename(state[key]) for key in self._PATHS}
        scores = {os.path.basename(path): score for path, score in state["best_k_models"].items()}
        return state | names | {"best_k_models": scores, "dirpath": "."}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        scores = {self._path_here(path): score for path, score in state_dict["best_k_models"].items()}
        if scores and all(os.path.isfile(path) for path in scores):
            paths = {key: self._path_here(state_dict[key]) for key in self._PATHS}
            super().load_state_dict(state_dict | paths | {"best_k_models": scores, "dirpath": self.dirpath})
            self.current_score = state_dict["current_score"]  # Lightning does not restore it

    def _path_here(self, path: str) -> str:
        return os.path.join(self.dirpath or "", os.path.basename(path)) if path else path


class SaveLast(Checkpoint):
    """Save `last.ckpt` every so many steps or minutes, after each validation, at the end, and on a signal.

    The checkpoint is saved at most once per step, and after the validation if one follows the step. On a signal, the
    current step is finished or the current validation aborted, the checkpoint is saved, and the training ends with
    `Interrupted`. A resumed run first makes up for the validation that was due.

    Args:
        path: File of the checkpoint, replaced atomically.
        steps: Generator steps between checkpoints; None to ignore steps.
        minutes: Minutes between checkpoints; None to ignore the time.
    """

    def __init__(self, path: str | Path, steps: int | None = None, minutes: float | None = None):
        self._path, self._steps = Path(path), steps
        self._seconds = float("inf") if minutes is None else 60 * minutes
        #: Generator steps, and step of the last validation, of the saved checkpoint.
        self._saved: tuple[int, int | None] | None = None
        self._saved_at = 0.0
        #: Step of the last complete validation.
        self._validated: int | None = None
        self.interrupted: Interrupted | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validated = state_dict["validated"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Defer signals to the end of a step, and run a validation that the previous run did not complete."""
        # Replaces Lightning's handler, which ends a run without saving.
        interrupts.defer()
        resumed, step = trainer.ckpt_path, generator_steps(pl_module)
        if resumed is None or self._validated is None:
            # Checkpoints of earlier versions do not contain it either.
            self._validated = step
        same = resumed is not None and self._path.is_file() and self._path.samefile(resumed)
        self._saved = (step, self._validated) if same else None
        self._saved_at = time.monotonic()
        if self._validated != step and _validation_follows(trainer):
            validation = trainer.fit_loop.epoch_loop.val_loop
            trainer.validating, validation.restarting = True, False
            validation.run()
            trainer.training = True
            # Otherwise Lightning treats an epoch that ends here as one that was trained in this process.
            validation._has_run = False

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if a checkpoint is due. On a signal, save and end the training once the metrics are logged."""
        if _validation_follows(trainer):
            return
        late = time.monotonic() - self._saved_at >= self._seconds
        signum, late = _max_over_processes(trainer, interrupts.received(), int(late))
        due = self._steps is not None and generator_steps(pl_module) % self._steps == 0
        if signum:
            self._save_interrupted(trainer, pl_module, signum)
            # Lightning then raises `SIGTERMException` at the end of the step.
            trainer._signal_connector.received_sigterm = True
        elif due or late or trainer.should_stop:
            self._save(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_if_interrupted(trainer, pl_module)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self._end_if_interrupted(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Before `on_validation_end`, where the best checkpoint is saved with this state.
        if self._in_training(trainer):
            self._validated = generator_steps(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._in_training(trainer):
            self._save(trainer, pl_module)
            self._end_if_interrupted(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, pl_module)
        interrupts.stop_deferring()
        if interrupts.received():
            raise self._save_interrupted(trainer, pl_module, interrupts.received())

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop deferring signals, and end the processes that this one started."""
        interrupts.stop_deferring()
        launcher = trainer.strategy.launcher
        # After a signal during training the processes end by themselves.
        started_processes = isinstance(launcher, _SubprocessScriptLauncher)
        if started_processes and isinstance(exception, Interrupted) and self.interrupted is None:
            launcher.kill(exception.signum)

    def _end_if_interrupted(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._in_training(trainer):
            return
        (signum,) = _max_over_processes(trainer, interrupts.received())
        if signum:
            raise self._save_interrupted(trainer, pl_module, signum)

    def _in_training(self, trainer: pl.Trainer) -> bool:
        return trainer.state.fn == "fit" and not trainer.sanity_checking

    def _save_interrupted(self, trainer: pl.Trainer, pl_module: pl.LightningModule, signum: int) -> Interrupted:
        self._save(trainer, pl_module)
        note = f"{self._path} holds step {generator_steps(pl_module)}; the same command resumes the training from there"
        self.interrupted = Interrupted(signum, note)
        return self.interrupted

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        state = (generator_steps(pl_module), self._validated)
        if state != self._saved:
            trainer.save_checkpoint(self._path)
            self._saved, self._saved_at = state, time.monotonic()


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Raise `Interrupted` instead of the exception with which Lightning ends a training on a signal."""
    try:
        yield
    except SIGTERMException:
        save_last = next((c for c in trainer.checkpoint_callbacks if isinstance(c, SaveLast)), None)
        if save_last is None or save_last.interrupted is None:
            raise
        raise save_last.interrupted from None


def _validation_follows(trainer: pl.Trainer) -> bool:
    """Return whether Lightning validates after the current step."""
    loop = trainer.fit_loop.epoch_loop
    return not loop.val_loop.skip and loop._should_check_val_fx(cast(Any, trainer.fit_loop._data_fetcher))


def _max_over_processes(trainer: pl.Trainer, *values: int) -> list[int]:
    """Return the maximum of each value over all processes, so that they act alike."""
    if trainer.world_size == 1:
        return list(values)
    local = torch.tensor(values, device=trainer.strategy.root_device)
    return trainer.strategy.all_gather(local).amax(0).tolist()
