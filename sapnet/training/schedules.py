"""Learning-rate schedules."""

import math
import warnings
from collections.abc import Sequence
from itertools import accumulate

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def one_cycle(optimizer: Optimizer, steps: Sequence[int], warm_up: float = 0.12) -> LRScheduler:
    """Increase the rate from 1/25 of its maximum to the maximum, then decrease it to zero, along cosines.

    Args:
        optimizer: Optimizer whose learning rates are the maxima.
        steps: Number of steps of the optimizer in each phase of the training. Every phase has its own cycle.
        warm_up: Share of a phase in which the rate increases.
    """
    ends = list(accumulate(steps))

    def factor(step: int) -> float:
        phase = next((i for i, end in enumerate(ends) if step < end), len(ends) - 1)
        step, length = step - (ends[phase] - steps[phase]), max(1, steps[phase])
        increasing = max(1, round(warm_up * length))
        if step < increasing:
            return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * step / increasing)) / 2
        progress = min(1.0, (step - increasing) / max(1, length - increasing))
        return (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def halving(optimizer: Optimizer, steps: Sequence[int], every: int = 200_000) -> LRScheduler:
    """Halve the rates every `every` steps (Sec. 4.1); `steps` is not used."""
    return LambdaLR(optimizer, lambda step: 0.5 ** (step // every))


def advance_to(scheduler: LRScheduler, step: int) -> None:
    """Advance a new schedule, and the rates of its optimizer, to a step."""
    with warnings.catch_warnings():
        # PyTorch warns about a schedule that is stepped before its optimizer.
        warnings.filterwarnings("ignore", ".*lr_scheduler.step.*")
        if isinstance(scheduler, LambdaLR) and step > 0:
            # Its rate is a function of the step, so the steps before can be skipped.
            state = scheduler.state_dict() | {"last_epoch": step - 1, "_step_count": step}
            scheduler.load_state_dict(state)
            step = 1
        for _ in range(step):
            scheduler.step()
