"""Random numbers that are reproducible after a resume without stored generator states."""

import hashlib
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from sapnet.training.callbacks.generator_steps import generator_steps


class StepSeeds(Callback):
    """Seed PyTorch before each training step and validation, from the seed, the step and the process.

    The random numbers of a step therefore do not depend on earlier draws, such as those of a validation or of the start
    of a resumed run.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(step_seed(self._seed, generator_steps(pl_module), trainer.global_rank))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Negative numbers differ from those of all training steps.
        torch.manual_seed(step_seed(self._seed, -1 - generator_steps(pl_module), trainer.global_rank))


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return a seed of 56 bits; seeds of neighbouring steps and processes are unrelated."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()[:7])
