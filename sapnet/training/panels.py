"""The picture of a validation: blurred, every stage's output and sharp, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from sapnet.data.images import write_image
from sapnet.evaluation.metrics import psnr
from sapnet.evaluation.pictures import Cell, Picture, heat_map, panel, with_points
from sapnet.training.restoration import RestorationModule


class PanelCallback(Callback):
    """Makes a panel of the first validation images after each validation.

    It goes to the loggers that take pictures (W&B, TensorBoard); where there is none, to a PNG in `folder`,
    `step_000500.png` after 500 generator steps. The images are those that the module left in `validation_samples`:
    dicts of `name`, `blurred` and `sharp` [3, h, w], `outputs` (a list of the same shape) and, where they are known,
    `extent` [1, h, w] in pixels and `points`: by the index of a sampled stage from 0, the pixels it chose [h, w].
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the panel; the trial batches before training get none."""
        module = cast(RestorationModule, pl_module)
        samples = module.validation_samples
        if trainer.sanity_checking or not trainer.is_global_zero or not samples:
            return
        step, picture = module.generator_steps, validation_panel(samples)
        takers = [taker for logger in trainer.loggers if (taker := getattr(logger, "log_picture", None))]
        for log_picture in takers:
            log_picture("validation", picture, step)
        if not takers:
            write_image(self._folder / f"step_{step:06d}.png", picture)


def validation_panel(samples: Sequence[Mapping[str, Any]]) -> Picture:
    """One row for each sample, as `PanelCallback` describes them, with PSNR in dB in the titles."""
    drawn = [_row(sample) for sample in samples]
    return panel([cells for cells, _ in drawn], [titles for _, titles in drawn])


def _row(sample: Mapping[str, Any]) -> tuple[list[Cell], list[str]]:
    sharp = sample["sharp"]
    images: list[Tensor] = [sample["blurred"], *sample["outputs"]]
    cells: list[Cell] = [*images, sharp]
    titles = ["blurred", *(f"stage {number}" for number in range(1, len(sample["outputs"]) + 1))]
    titles = [f"{word}  {_psnr(image, sharp):.2f} dB" for word, image in zip(titles, images, strict=True)]
    titles.append("sharp")
    for stage, chosen in sample.get("points", {}).items():
        cells.append(with_points(sample["outputs"][stage - 1], chosen))
        titles.append(f"points of stage {stage + 1}")
    if sample.get("extent") is not None:
        cells.append(heat_map(sample["extent"]))
        titles.append("blur extent")
    return cells, titles


def _psnr(image: Tensor, sharp: Tensor) -> float:
    return float(psnr(image[None].float(), sharp[None].float()))
