"""Choice between the best and the last checkpoint of a run for evaluation."""

import logging
import os
from pathlib import Path

from sapnet.checkpoints.files import load_checkpoint

log = logging.getLogger(__name__)
#: Names of the checkpoint files, and values of `evaluate_checkpoint`: the best by validation PSNR, and the last.
KINDS = ("best", "last")


def evaluated_checkpoint(folder: str | Path, kind: str = "best") -> Path:
    """Return the checkpoint of a run to evaluate.

    Args:
        folder: The folder `checkpoints` of the run.
        kind: `best` or `last`. Without validation, or without a callback that chooses it, there is no best checkpoint:
            a warning is logged and the last checkpoint is returned.
    """
    folder = Path(folder)
    if kind == "best" and not (folder / "best.ckpt").is_file():
        log.warning(
            "%s: no best checkpoint, because no validation was made or callbacks has none that chooses it; the last"
            " checkpoint is evaluated.",
            folder,
        )
        kind = "last"
    return folder / f"{kind}.ckpt"


def best_validation(checkpoint: str | Path) -> float:
    """Return the best value so far of the metric that chooses `best.ckpt` (by default the validation PSNR in dB).

    Args:
        checkpoint: A checkpoint of the run, such as the last one.

    Returns:
        NaN if no validation was made, or `callbacks` chooses no best checkpoint.
    """
    states = load_checkpoint(checkpoint).get("callbacks", {})
    scores = [
        state["best_model_score"]
        for state in states.values()
        if isinstance(state, dict) and os.path.basename(str(state.get("best_model_path"))) == "best.ckpt"
    ]
    return float(scores[0]) if scores else float("nan")


def checkpoint_kind(path: str | Path) -> str:
    """Return `best` or `last` from the file name of a checkpoint, or `given` for other names."""
    stem = Path(path).stem
    return stem if stem in KINDS else "given"
