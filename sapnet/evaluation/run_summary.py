"""`summary.json`: what a training or an evaluation did and found, in one small file of its run folder."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from sapnet.provenance import write_json

#: Name of the file.
SUMMARY = "summary.json"


def write_summary(
    folder: Path,
    checkpoint: Path | None,
    run_seconds: float,
    test: Mapping[str, Any] | None = None,
    validation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `summary.json` atomically and return its content; numbers that are not finite are null.

    Args:
        folder: Folder of the run.
        checkpoint: The evaluated checkpoint, or the best one without a test, stored relative to the folder; None for
            published weights.
        run_seconds: Time of the whole command.
        test: Result of `sapnet.evaluation.network_evaluation.measure`, whose keys become keys of the file; None without
            a test.
        validation: `validation_scores` of the training; None for an evaluation.

    Raises:
        OSError: The file cannot be written.
    """
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    content = {
        "overrides": overrides,
        "checkpoint": None if checkpoint is None else os.path.relpath(checkpoint, folder),
        **(test or {}),
        "validation": None if validation is None else dict(validation),
        "run_seconds": round(run_seconds, 1),
    }
    return write_json(folder / SUMMARY, _finite(content))


def _finite(value: Any) -> Any:
    # JSON has no infinity, the bounds of an interval of one image.
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
