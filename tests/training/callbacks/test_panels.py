"""Panels of the first validation images."""

import cv2
import numpy as np
import pytest
import torch

from sapnet.training.callbacks.panels import PanelCallback, validation_panel
from sapnet.training.loggers.csv_logger import CsvLogger
from tests.training.two_optimizers import TwoOptimizers, fit


class PictureLogger(CsvLogger):
    """A logger that records pictures."""

    def __init__(self, folder):
        super().__init__(folder)
        self.pictures = []

    def log_picture(self, name, picture, step):
        self.pictures.append((name, picture.shape, picture.dtype, step))


def sample(size=32, **extra):
    rng = torch.Generator().manual_seed(0)
    blurred, stage, sharp = torch.rand(3, 3, size, size, generator=rng)
    return {"name": "a.png", "blurred": blurred, "outputs": [stage, sharp], "sharp": sharp, **extra}


def callbacks(folder):
    return {"callbacks": [PanelCallback(folder)], "enable_progress_bar": False}


@pytest.mark.parametrize("loggers", [False, "csv"])
def test_without_a_logger_for_pictures_files_are_written(tmp_path, loggers):
    loggers = [CsvLogger(tmp_path)] if loggers else False
    fit(TwoOptimizers(), logger=loggers, max_epochs=2, **callbacks(tmp_path / "panels"))
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == ["step_000004.png", "step_000008.png"]
    picture = cv2.imread(str(tmp_path / "panels" / "step_000004.png"))
    # Two samples, each with blurred, two stages and sharp, enlarged to 192 pixels, with titles.
    assert picture.shape[1] == 4 * 192 + 3 * 6
    assert picture.shape[0] > 2 * 192


def test_a_logger_for_pictures_replaces_the_files(tmp_path):
    logger = PictureLogger(tmp_path)
    fit(TwoOptimizers(), logger=[logger], **callbacks(tmp_path / "panels"))
    ((name, shape, dtype, step),) = logger.pictures
    assert (name, shape[2], dtype, step) == ("validation", 3, np.uint8, 4)
    assert not (tmp_path / "panels").exists()


def test_the_blur_extent_is_a_separate_column():
    without, with_extent = validation_panel([sample()]), validation_panel([sample(extent=torch.rand(1, 32, 32))])
    assert with_extent.shape[1] - without.shape[1] == 192 + 6


def test_the_order_of_the_images():
    grey = [torch.full((3, 192, 192), level) for level in (0.1, 0.3, 0.5, 0.7)]
    picture = validation_panel([{"name": "x", "blurred": grey[0], "outputs": grey[1:3], "sharp": grey[3]}])
    centres = [picture[-96, 96 + column * 198] for column in range(4)]
    assert [int(centre[0]) for centre in centres] == [26, 76, 128, 178]
