"""Gates: factors of 1 on the updates of sampled points, whose gradients give the first-order value of each point.

A block refines a point as `x + gate * update`. For a loss `E`, `-dE/dgate` is the first-order value of the point's
update to the whole network, including its effect on neighbours and later stages.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sapnet.sampling.sampled_points import SampledPoints


def unit_gates(
    points: Mapping[int, Int64[Tensor, "b _"]], dtype: torch.dtype = torch.float32
) -> dict[int, Float[Tensor, "b _"]]:
    """Create gates of value 1 for each scale, whose gradients can be read after a backward pass."""
    return {r: torch.ones(p.shape, dtype=dtype, device=p.device, requires_grad=True) for r, p in points.items()}


def policy_gates(sampled: SampledPoints) -> dict[int, Float[Tensor, "_ _"]]:
    """Create gates of value 1 with the gradient `grad p / p`, where `p` is the probability that the point was drawn.

    The backward pass of the restoration loss then also reaches the policy. Its gradient is the sum over drawn points of
    `dE/dgate * grad p / p`, with the expectation `sum_j E[dE/dgate_j | j drawn] grad p_j`. This is exact if the loss is
    linear in each gate and biased otherwise. Unused slots have the constant gate 1.

    Args:
        sampled: Points that a learned sampler drew.

    Raises:
        ValueError: The points were not drawn from a policy.
    """
    if not sampled.actions:
        raise ValueError("policy gates need points drawn by a learned sampler")
    gates = {}
    for scale, points in sampled.points.items():
        p = sampled.probabilities[scale].flatten(1).gather(1, points.clamp(min=0))
        p = torch.where(points < 0, torch.ones_like(p), p)
        gates[scale] = 1 + (p - p.detach()) / p.detach()
    return gates
