"""Random numbers that a resumed run continues without a stored state."""

import hashlib
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


class StepRandomness(Callback):
    """Makes the random numbers of a training step or a validation a function of the seed, the step and the process.

    Torch's generators are seeded anew before each, so it does not matter what drew from them before: a validation in
    between, or the start of a resumed run, which would otherwise repeat the draws of the first steps.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators of all devices."""
        torch.manual_seed(step_seed(self._seed, pl_module.generator_steps, trainer.global_rank))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed the generators, other than for any step."""
        torch.manual_seed(step_seed(self._seed, -1 - pl_module.generator_steps, trainer.global_rank))


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """A seed of 56 bits; neighbouring steps, seeds and processes have nothing in common."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()[:7])
