"""Phases of a training: all stages together, or stage by stage with the earlier stages fixed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sapnet.errors import UserError


@dataclass(frozen=True)
class Phase:
    """Part of a training in which the same stages learn.

    Attributes:
        begin: First generator step, from 0.
        end: The step after its last one.
        stages: Index of the first stage that learns, from 0, and the index after the last; None for all stages.
    """

    begin: int
    end: int
    stages: tuple[int, int] | None = None

    @property
    def steps(self) -> int:
        """Number of generator steps."""
        return self.end - self.begin


def make_phases(steps: int, stagewise: Sequence[float], stages: int | None = None) -> tuple[Phase, ...]:
    """Return the phases of a training.

    Args:
        steps: Generator steps of the whole training.
        stagewise: For each stage the share of the steps at which it starts to learn, the first one 0. From then on the
            earlier stages are fixed; later stages do not run. Empty for one phase in which all stages learn.
        stages: Number of stages of the network; None to skip this check.

    Raises:
        UserError: The shares do not increase from 0 to less than 1, or their number differs from that of the stages.
    """
    shares = list(stagewise)
    if not shares:
        return (Phase(0, steps),)
    if shares[0] != 0 or any(b <= a for a, b in zip(shares, [*shares[1:], 1.0], strict=True)):
        raise UserError(f"stagewise={shares}: give increasing shares of the steps, the first 0, all below 1.")
    if stages is not None and len(shares) != stages:
        raise UserError(f"stagewise={shares}: this network has {stages} stages; give a share for each.")
    bounds = [round(share * steps) for share in [*shares, 1.0]]
    return tuple(Phase(a, b, (k, k + 1)) for k, (a, b) in enumerate(pairwise(bounds)))
