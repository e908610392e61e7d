"""What makes a killed run go on as if nothing had happened: random numbers that need no state, frequent checkpoints."""

import hashlib
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


class StepRandomness(Callback):
    """Makes the random numbers of a training step a function of the seed, the step and the process alone.

    Torch's generators are seeded anew before each step, so it does not matter what drew from them before: a validation
    in between, or the start of a resumed run, which would otherwise repeat the draws of the first steps.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators of all devices."""
        torch.manual_seed(step_seed(self._seed, pl_module.generator_steps, trainer.global_rank))


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """A seed of 56 bits; neighbouring steps, seeds and processes have nothing in common."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()[:7])


class SaveEvery(Callback):
    """Writes a checkpoint every so many generator steps, whether or not a validation is due.

    Args:
        steps: Generator steps from one checkpoint to the next.
        path: The file, each time replaced as a whole.
    """

    def __init__(self, steps: int, path: str | Path):
        self._steps, self._path = steps, Path(path)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is due."""
        if pl_module.generator_steps % self._steps == 0:
            trainer.save_checkpoint(self._path)
