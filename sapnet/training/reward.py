"""The reward of a non-uniform stage (Eq. 5): how right its image is, and whether it kept the budget."""

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
    """First term of Eq. 5 per pixel, `-alpha (|OP_k - GT| + |OP_{k-1} - GT|)`, errors averaged over RGB; no gradient.

    A stage is paired with its own reward only: `OP_{k-1}` is its state, which its action cannot change. So
    `baseline="improvement"` may add `2 alpha |OP_{k-1} - GT|`: the expected gradient stays, its variance falls, and
    what is left is `alpha (|OP_{k-1} - GT| - |OP_k - GT|)`, how much better the stage made the pixel. `"none"` is the
    paper's. Images are RGB in [0, 1]. Raises `UserError` for any other baseline.
    """
    now = (restored - sharp).abs().mean(dim=1)
    before = (previous - sharp).abs().mean(dim=1)
    if baseline == "improvement":
        return alpha * (before - now)
    if baseline == "none":
        return -alpha * (now + before)
    raise UserError(f"baseline={baseline!r} is unknown: use 'improvement' or 'none'.")


@torch.no_grad()
def budget_penalty(sampling: SampledPoints, scale: int, beta: float = 0.5) -> Float[Tensor, "p"]:
    """Second term of Eq. 5 for each patch at one scale, `beta 1(L' > L)`, less the constant `beta / 2`.

    `L'` counts the points that were drawn, those dropped for lack of slots included. The constant is a baseline: it
    makes too many and too few points weigh the same, and leaves the expected gradient alone.
    """
    drawn = sampling.drawn_counts(scale)
    budget = torch.tensor(sampling.counts[scale], device=drawn.device)
    return beta * ((drawn > budget).to(sampling.map.dtype) - 0.5)
