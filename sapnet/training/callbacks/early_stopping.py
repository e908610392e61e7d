"""Early stopping that also holds when the command of a stopped training is repeated."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from sapnet.errors import UserError


class StopEarly(EarlyStopping):
    """Lightning's `EarlyStopping`, checked after each validation.

    A training that resumes from a checkpoint at which it stopped early takes no step, unless `patience` was raised.

    Args:
        monitor: Metric of the validation.
        mode: `max` or `min`.
        patience: Number of validations without improvement after which the training ends.
        min_delta: Smallest change that counts as an improvement.
    """

    def __init__(self, monitor: str = "val/psnr", mode: str = "max", patience: int = 10, min_delta: float = 0.0):
        super().__init__(monitor, min_delta, patience, mode=mode, check_on_train_epoch_end=False)
        self._patience = patience

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the metric.

        Raises:
            UserError: The validation does not measure it.
        """
        if self.monitor not in trainer.callback_metrics:
            measured = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
            raise UserError(
                f"early stopping: {self.monitor} is not measured; the validation has {', '.join(measured)}."
            )
        super().on_validation_end(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The state of the checkpoint replaces it.
        self.patience = self._patience
        if self.wait_count >= self.patience:
            trainer.should_stop = True
