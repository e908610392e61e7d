"""Metrics and pictures in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning.loggers as lightning
from omegaconf import OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from sapnet.errors import UserError
from sapnet.evaluation.pictures import Picture
from sapnet.training.loggers.labels import Labels
from sapnet.training.loggers.steps import split_step


class TensorBoardLogger(lightning.TensorBoardLogger):
    """Write TensorBoard event files to `<folder>/tensorboard`.

    Raises:
        UserError: The optional package `tensorboard` is not installed.
    """

    def __init__(self, folder: Path, config: dict[str, Any] | None = None, labels: Labels | None = None):
        try:
            super().__init__(save_dir=folder, name="tensorboard", version="", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise UserError(
                "logger=tensorboard needs the package tensorboard: install it with pip install 'sapnet[tensorboard]',"
                " or use logger=csv."
            ) from error
        self._config = config

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Log the config as text; TensorBoard's table of hyperparameters cannot show nested values."""
        if self._config is not None:
            self.experiment.add_text("config", f"```yaml\n{OmegaConf.to_yaml(self._config)}```")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(*split_step(metrics, step))

    @rank_zero_only
    def log_picture(self, name: str, picture: Picture, step: int) -> None:
        """Log an image at a generator step."""
        self.experiment.add_image(name, picture, step, dataformats="HWC")

    def finish(self, exit_code: int) -> None:
        """Flush and close the event file."""
        self.finalize("success" if exit_code == 0 else "failed")
