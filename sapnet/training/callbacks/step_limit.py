"""Stop a training after a number of generator steps."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from sapnet.training.callbacks.generator_steps import generator_steps


class StepLimit(Callback):
    """Stop a training after a number of generator steps, counted across resumed runs.

    Lightning's own `max_steps` counts the steps of all optimizers.
    """

    def __init__(self, steps: int):
        self._steps = steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The checkpoint may already have all steps.
        self._stop_at_limit(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._stop_at_limit(trainer, pl_module)

    def _stop_at_limit(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if generator_steps(pl_module) >= self._steps:
            trainer.should_stop = True
