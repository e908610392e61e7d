"""Reward of a non-uniform stage (Eq. 5): restoration error, and penalty for exceeding the budget."""

import torch
from jaxtyping import Float
from torch import Tensor

from sapnet.errors import UserError
from sapnet.sampling.sampled_points import SampledPoints


@torch.no_grad()
def stage_reward(
    restored: Float[Tensor, "b 3 h w"],
    previous: Float[Tensor, "b 3 h w"],
    sharp: Float[Tensor, "b 3 h w"],
    alpha: float = 1.0,
    baseline: str = "improvement",
) -> Float[Tensor, "b h w"]:
    """Return the first term of Eq. 5 per pixel, without gradient.

    The term is `-alpha (|OP_k - GT| + |OP_{k-1} - GT|)`, with errors averaged over RGB. The action of stage `k` cannot
    change `OP_{k-1}`. Therefore `baseline="improvement"` may add `2 alpha |OP_{k-1} - GT|`: the expected gradient stays
    the same and its variance decreases. The sum is `alpha (|OP_{k-1} - GT| - |OP_k - GT|)`, the improvement of the
    pixel by the stage.

    Args:
        restored: Output of the stage, `OP_k`; RGB in [0, 1].
        previous: Output of the previous stage, `OP_{k-1}`.
        sharp: Ground truth.
        alpha: Weight of the error.
        baseline: `improvement`, or `none` for the reward of the paper.

    Raises:
        UserError: The baseline is unknown.
    """
    error = (restored - sharp).abs().mean(dim=1)
    previous_error = (previous - sharp).abs().mean(dim=1)
    if baseline == "improvement":
        return alpha * (previous_error - error)
    if baseline == "none":
        return -alpha * (error + previous_error)
    raise UserError(f"baseline={baseline!r} is unknown: use 'improvement' or 'none'.")


@torch.no_grad()
def budget_penalty(sampling: SampledPoints, scale: int, beta: float = 0.5) -> Float[Tensor, "p"]:
    """Return the second term of Eq. 5 for each patch at one scale: `beta 1(L' > L) - beta / 2`.

    `L'` is the number of points drawn, including those dropped because all slots are taken. The constant `beta / 2` is
    a baseline: it weighs too many and too few points equally, and does not change the expected gradient.
    """
    drawn = sampling.drawn_counts(scale)
    budget = torch.tensor(sampling.counts[scale], device=drawn.device)
    return beta * ((drawn > budget).to(sampling.map.dtype) - 0.5)
