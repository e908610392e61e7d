"""Learning-rate schedules of an optimizer that takes a known number of steps; rates are those of its groups."""

import math
import warnings
from collections.abc import Sequence
from itertools import accumulate

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


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
    return LambdaLR(optimizer, lambda step: 0.5 ** (step // every))


def enter_at(scheduler: LRScheduler, step: int) -> None:
    """Bring a new schedule, and the rates of its optimizer, to where they stand after so many steps."""
    with warnings.catch_warnings():
        # Of a schedule that is stepped before its optimizer.
        warnings.filterwarnings("ignore", ".*lr_scheduler.step.*")
        if isinstance(scheduler, LambdaLR) and step > 0:
            # Its rate is a function of the step: no need to take them one by one.
            state = scheduler.state_dict() | {"last_epoch": step - 1, "_step_count": step}
            scheduler.load_state_dict(state)
            step = 1
        for _ in range(step):
            scheduler.step()
