"""Gates: a factor of 1 on the update of each sampled point, whose gradient is the point's first-order value.

A block refines a point as `x + gate * update`. With the loss `E`, `-dE/dgate` is what the point is worth to the whole
network, its neighbours and later stages included, to first order in the update.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sapnet.sampling.result import Sampling


def unit_gates(
    points: Mapping[int, Int64[Tensor, "b l"]], dtype: torch.dtype = torch.float32
) -> dict[int, Float[Tensor, "b l"]]:
    """Gates whose gradients can be read after a backward pass, by scale."""
    return {r: torch.ones(p.shape, dtype=dtype, device=p.device, requires_grad=True) for r, p in points.items()}


def policy_gates(sampling: Sampling) -> dict[int, Float[Tensor, "b l"]]:
    """Gates of value 1 with the gradient `grad p / p` of the probability that the point was drawn with.

    The restoration loss then reaches the policy in the one backward pass that is made anyway: its gradient is the sum
    over drawn points of `dE/dgate * grad p / p`, which in the mean over draws is `sum_j E[dE/dgate_j | j drawn] grad
    p_j`: exact where the loss is linear in each gate, biased elsewhere. Unused slots have the constant gate 1.

    Args:
        sampling: Points that a learned sampler drew.

    Raises:
        ValueError: If the sampling was not drawn from a policy.
    """
    if not sampling.actions:
        raise ValueError("gates of a policy need points that a learned sampler drew")
    gates = {}
    for scale, points in sampling.points.items():
        p = sampling.probabilities[scale].flatten(1).gather(1, points.clamp(min=0))
        p = torch.where(points < 0, torch.ones_like(p), p)
        gates[scale] = 1 + (p - p.detach()) / p.detach()
    return gates
