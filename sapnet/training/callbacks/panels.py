"""Picture of the first validation images: blurred, output of each stage, and sharp, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from sapnet.data.images import write_image
from sapnet.evaluation.metrics import psnr
from sapnet.evaluation.pictures import Cell, Picture, heat_map, panel, with_points
from sapnet.training.restoration_module import RestorationModule


class PanelCallback(Callback):
    """Log a panel of the first validation images after each validation.

    The panel goes to the loggers that accept pictures (W&B, TensorBoard). If there is none, it is written as a PNG to
    `folder`, such as `step_000500.png` after 500 generator steps.

    The images are `validation_samples` of the module: dicts of `name`, `blurred` and `sharp` [3, h, w], `outputs` (a
    list of the same shape) and, if available, `extent` [1, h, w] in pixels and `points`: by the index of a sampled
    stage from 0, the mask of its points [h, w].
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = cast(RestorationModule, pl_module)
        samples = module.validation_samples
        if trainer.sanity_checking or not trainer.is_global_zero or not samples:
            return
        step, picture = module.generator_steps, validation_panel(samples)
        loggers = [method for logger in trainer.loggers if (method := getattr(logger, "log_picture", None))]
        for log_picture in loggers:
            log_picture("validation", picture, step)
        if not loggers:
            write_image(self._folder / f"step_{step:06d}.png", picture)


def validation_panel(samples: Sequence[Mapping[str, Any]]) -> Picture:
    """Draw one row per sample (see `PanelCallback`), with PSNR in dB in the titles."""
    rows = [_row(sample) for sample in samples]
    return panel([cells for cells, _ in rows], [titles for _, titles in rows])


def _row(sample: Mapping[str, Any]) -> tuple[list[Cell], list[str]]:
    sharp = sample["sharp"]
    images: list[Tensor] = [sample["blurred"], *sample["outputs"]]
    cells: list[Cell] = [*images, sharp]
    names = ["blurred", *(f"stage {number}" for number in range(1, len(sample["outputs"]) + 1))]
    titles = [f"{name}  {_psnr(image, sharp):.2f} dB" for name, image in zip(names, images, strict=True)]
    titles.append("sharp")
    for stage, mask in sample.get("points", {}).items():
        cells.append(with_points(sample["outputs"][stage - 1], mask))
        titles.append(f"points of stage {stage + 1}")
    if sample.get("extent") is not None:
        cells.append(heat_map(sample["extent"]))
        titles.append("blur extent")
    return cells, titles


def _psnr(image: Tensor, sharp: Tensor) -> float:
    return float(psnr(image[None].float(), sharp[None].float()))
