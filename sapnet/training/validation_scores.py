"""Last and best PSNR of the validations of a training."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

#: Metric that chooses the best checkpoint.
MONITORED = "val/psnr"


def next_scores(scores: Mapping[str, Any] | None, psnr: float, step: int, trainer: pl.Trainer) -> dict[str, Any]:
    """Return the scores of a training after a validation.

    Args:
        scores: The scores before: `psnr` and `step` of the last validation, `psnr_best` and `step_best` of the best
            one; None before the first one.
        psnr: PSNR of the validation in dB.
        step: Its generator step.
        trainer: The trainer, whose best checkpoint decides about the best PSNR before: in the folder of another run the
            search for it restarts.
    """
    best = None if scores is None else scores["psnr_best"]
    for callback in trainer.checkpoint_callbacks:
        if getattr(callback, "monitor", None) == MONITORED:
            score = getattr(callback, "best_model_score", None)
            best = None if score is None else float(score)
    # A checkpoint of an earlier version holds no scores, but the best PSNR.
    kept = dict(scores or {"psnr_best": best})
    if best is None or psnr > best:
        kept |= {"psnr_best": psnr, "step_best": step}
    return {**kept, "psnr": psnr, "step": step}
