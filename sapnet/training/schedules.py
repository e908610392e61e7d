"""Learning-rate schedules of an optimizer that takes a known number of steps; rates are those of its groups."""

import math
from collections.abc import Sequence
from itertools import accumulate

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR


def one_cycle(optimizer: Optimizer, steps: Sequence[int], warm_up: float = 0.12) -> LRScheduler:
    """Rise from 1/25 of each group's rate to all of it, then fall to zero at the last step, both along a cosine.

    Args:
        optimizer: Its groups' rates are the peaks.
        steps: How many steps the optimizer will take, in each phase of the training; every phase has its own cycle.
        warm_up: Share of a phase's steps in which the rate rises.
    """
    ends = list(accumulate(steps))

    def factor(step: int) -> float:
        place = next((i for i, end in enumerate(ends) if step < end), len(ends) - 1)
        step, length = step - (ends[place] - steps[place]), max(1, steps[place])
        rising = max(1, round(warm_up * length))
        if step < rising:
            return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * step / rising)) / 2
        done = min(1.0, (step - rising) / max(1, length - rising))
        return (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, factor)


def halving(optimizer: Optimizer, steps: Sequence[int], every: int = 200_000) -> LRScheduler:
    """Halve the rates every so many steps (Sec. 4.1), however many there are."""
    return StepLR(optimizer, every, 0.5)
