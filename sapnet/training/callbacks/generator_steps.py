"""Number of generator steps of a training."""

from typing import cast

import pytorch_lightning as pl

from sapnet.training.restoration_module import RestorationModule


def generator_steps(module: pl.LightningModule) -> int:
    """Return the generator steps so far; Lightning's `global_step` counts the steps of all optimizers."""
    return cast(RestorationModule, module).generator_steps
