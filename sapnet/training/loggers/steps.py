"""Generator steps as the x axis of all metrics."""

from collections.abc import Mapping
from typing import Any

#: Metric whose value replaces the step of the metrics logged together with it.
STEP = "generator_steps"


def split_step(metrics: Mapping[str, Any], step: int | None) -> tuple[dict[str, Any], int | None]:
    """Return the metrics without `generator_steps`, and the step: that metric, or `step` if it is missing."""
    values = dict(metrics)
    generator_steps = values.pop(STEP, step)
    return values, None if generator_steps is None else int(generator_steps)
