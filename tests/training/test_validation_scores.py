"""Last and best PSNR of the validations of a training."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from sapnet.training.validation_scores import next_scores


def trainer(*callbacks: ModelCheckpoint) -> pl.Trainer:
    options = {"logger": False, "enable_checkpointing": bool(callbacks), "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", callbacks=list(callbacks), enable_progress_bar=False, **options)


def test_without_a_checkpoint_the_scores_hold_the_best():
    scores, without = None, trainer()
    for step, psnr in enumerate((20.0, 22.0, 21.0), start=1):
        scores = next_scores(scores, psnr, step, without)
    assert scores == {"psnr": 21.0, "step": 3, "psnr_best": 22.0, "step_best": 2}


def test_the_best_checkpoint_decides(tmp_path):
    """It restarts in the folder of another run, and is known of a run of an earlier version."""
    best = ModelCheckpoint(tmp_path, monitor="val/psnr", mode="max")
    other = ModelCheckpoint(tmp_path, monitor="val/ssim", mode="max", filename="other")
    with_best = trainer(other, best)
    earlier = {"psnr": 20.0, "step": 1, "psnr_best": 30.0, "step_best": 1}
    assert next_scores(earlier, 21.0, 2, with_best) == {"psnr": 21.0, "step": 2, "psnr_best": 21.0, "step_best": 2}
    best.best_model_score = torch.tensor(22.0)
    assert next_scores(None, 21.0, 2, with_best) == {"psnr": 21.0, "step": 2, "psnr_best": 22.0}
