"""When checkpoints are written: `best.ckpt` by validation PSNR, `last.ckpt` often, and at a signal before the end."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from sapnet import interrupts
from sapnet.errors import UserError
from sapnet.evaluation.claims import Claims
from sapnet.interrupts import Interrupted


class BestCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, whose state survives that the run folder is renamed or copied.

    The state holds file names in place of absolute paths. Where the best checkpoint that it names is not in this run's
    folder (a run that goes on from another run's checkpoint), the search for the best begins anew.
    """

    _PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")

    @property
    def state_key(self) -> str:
        """The key of earlier versions' checkpoints, which held a plain `ModelCheckpoint`."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the state with file names for paths."""
        state = super().state_dict()
        names = {key: os.path.basename(state[key]) for key in self._PATHS}
        best = {os.path.basename(path): score for path, score in state["best_k_models"].items()}
        return state | names | {"best_k_models": best, "dirpath": "."}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state over, if the files it names are in this run's folder."""
        best = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        if best and all(os.path.isfile(path) for path in best):
            paths = {key: self._here(state_dict[key]) for key in self._PATHS}
            super().load_state_dict(state_dict | paths | {"best_k_models": best, "dirpath": self.dirpath})
            self.current_score = state_dict["current_score"]  # Lightning leaves it out

    def _here(self, path: str) -> str:
        return os.path.join(self.dirpath, os.path.basename(path)) if path else path


class SaveLast(Checkpoint):
    """Writes `last.ckpt`: every so many steps or minutes, after each validation, at the end, and at a signal.

    It is written at most once a step: where a validation follows a step, after the validation. At a signal the step is
    finished, or the validation abandoned, the checkpoint saved, and the training ended by `Interrupted`. A run that is
    resumed from there does first the validation that was due.

    Args:
        path: The file, each time replaced as a whole.
        steps: Generator steps from one checkpoint to the next; None: steps do not matter.
        minutes: Minutes from one checkpoint to the next; None: time does not matter.
    """

    def __init__(self, path: str | Path, steps: int | None = None, minutes: float | None = None):
        self._path, self._steps = Path(path), steps
        self._seconds = float("inf") if minutes is None else 60 * minutes
        self._saved: tuple[int, int | None] | None = None
        self._saved_at = 0.0
        self._validated: int | None = None
        self.interrupted: Interrupted | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the step of the last complete validation."""
        return {"validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the step of the last complete validation."""
        self._validated = state_dict["validated"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let signals wait for the end of a step; catch up on a validation that the run before has left out."""
        # In place of Lightning's own handler, which ends a run without a checkpoint.
        interrupts.note()
        resumed, step = trainer.ckpt_path, pl_module.generator_steps
        if resumed is None or self._validated is None:
            # Also after a checkpoint of an earlier version, which does not tell.
            self._validated = step
        same = resumed is not None and self._path.is_file() and self._path.samefile(resumed)
        self._saved = (step, self._validated) if same else None
        self._saved_at = time.monotonic()
        if self._validated != step and _validation_follows(trainer):
            validation = trainer.fit_loop.epoch_loop.val_loop
            trainer.validating, validation.restarting = True, False
            validation.run()
            trainer.training = True
            # Else Lightning takes an epoch that ends here for one that was trained in this process.
            validation._has_run = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is due, and at a signal end the training as soon as the step's metrics are logged."""
        if _validation_follows(trainer):
            return
        late = time.monotonic() - self._saved_at >= self._seconds
        signum, late = _agreed(trainer, interrupts.received(), int(late))
        due = self._steps is not None and pl_module.generator_steps % self._steps == 0
        if signum:
            self._save_and_tell(trainer, pl_module, signum)
            # Lightning raises `SIGTERMException` for it at the end of the step.
            trainer._signal_connector.received_sigterm = True
        elif due or late or trainer.should_stop:
            self._save(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the training at a signal."""
        self._end_if_interrupted(trainer, pl_module)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """End the training at a signal."""
        self._end_if_interrupted(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the validation is complete, for the best checkpoint too, which is saved before the last one."""
        if self._in_training(trainer):
            self._validated = pl_module.generator_steps

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; end the training at a signal."""
        if self._in_training(trainer):
            self._save(trainer, pl_module)
            self._end_if_interrupted(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where the last step is not saved yet; end the run if a signal has come since."""
        self._save(trainer, pl_module)
        interrupts.raise_again()
        if interrupts.received():
            raise self._save_and_tell(trainer, pl_module, interrupts.received())

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let signals raise again; end the processes that this one has started."""
        interrupts.raise_again()
        launcher = trainer.strategy.launcher
        # After a signal that came in training they end on their own.
        unsettled = isinstance(exception, Interrupted) and self.interrupted is None
        if unsettled and isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(exception.signum)

    def _end_if_interrupted(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._in_training(trainer):
            return
        (signum,) = _agreed(trainer, interrupts.received())
        if signum:
            raise self._save_and_tell(trainer, pl_module, signum)

    def _in_training(self, trainer: pl.Trainer) -> bool:
        return trainer.state.fn == "fit" and not trainer.sanity_checking

    def _save_and_tell(self, trainer: pl.Trainer, pl_module: pl.LightningModule, signum: int) -> Interrupted:
        self._save(trainer, pl_module)
        remark = f"{self._path} holds step {pl_module.generator_steps}, and the same command goes on from there"
        self.interrupted = Interrupted(signum, remark)
        return self.interrupted

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        state = (pl_module.generator_steps, self._validated)
        if state != self._saved:
            trainer.save_checkpoint(self._path)
            self._saved, self._saved_at = state, time.monotonic()


def _validation_follows(trainer: pl.Trainer) -> bool:
    """Return whether Lightning validates after the present step."""
    loop = trainer.fit_loop.epoch_loop
    return not loop.val_loop.skip and loop._should_check_val_fx(trainer.fit_loop._data_fetcher)


def _agreed(trainer: pl.Trainer, *values: int) -> list[int]:
    """Return the largest of each value over all processes, so that they all do the same."""
    if trainer.world_size == 1:
        return list(values)
    mine = torch.tensor(values, device=trainer.strategy.root_device)
    return trainer.strategy.all_gather(mine).amax(0).tolist()


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Turn the exception by which Lightning ends a training at a signal into `Interrupted`."""
    try:
        yield
    except SIGTERMException:
        saving = next((c for c in trainer.callbacks if isinstance(c, SaveLast)), None)
        if saving is None or saving.interrupted is None:
            raise
        raise saving.interrupted from None


@contextmanager
def only_training(folder: str | Path) -> Iterator[None]:
    """Hold the run folder against other trainings; of several processes that train together the first one does.

    The lock is the process's own, not its children's, and ends with it, however it ends. A folder that did not exist
    and that an error leaves empty is removed.

    Raises:
        UserError: Another process trains in this folder.
    """
    if rank_zero_only.rank:
        yield
        return
    lock = Path(folder) / ".training.lock"
    new = not lock.parent.exists()
    with Claims(lock) as claims, claims.claim("training") as held:
        if not held:
            raise UserError(
                f"{folder}: another process is training in this folder: wait for its end and repeat the command, "
                "or give another folder (hydra.run.dir=FOLDER)."
            )
        try:
            yield
        except Exception:
            if new and list(lock.parent.iterdir()) == [lock]:
                lock.unlink()
                lock.parent.rmdir()
            raise
