"""Which of a run's checkpoints is evaluated, and what results call it."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)
#: The best by validation PSNR, and the last one: names of the files, and what `evaluate_checkpoint` may be.
KINDS = ("best", "last")


def evaluated_checkpoint(folder: str | Path, kind: str = "best") -> Path:
    """Return the checkpoint of a run that is evaluated.

    Args:
        folder: The run's ``checkpoints``.
        kind: `best` or `last`. Where no validation was made there is no best one: the last is taken, and it is said.
    """
    folder = Path(folder)
    if kind == "best" and not (folder / "best.ckpt").is_file():
        log.warning("%s: no validation was made, so there is no best checkpoint; the last is evaluated.", folder)
        kind = "last"
    return folder / f"{kind}.ckpt"


def checkpoint_kind(path: str | Path) -> str:
    """Return `best` or `last` by the name of a checkpoint's file, and `given` for one that has another name."""
    stem = Path(path).stem
    return stem if stem in KINDS else "given"
