"""Warm start of the policy: until the generator can use points, the policy imitates the error that training can see."""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sapnet.layers.hierarchy import join, split
from sapnet.sampling.context import StageContext
from sapnet.sampling.learned import LearnedSampler


def imitation_loss(sampler: LearnedSampler, state: StageContext, window: int = 5) -> Float[Tensor, ""]:
    """Binary cross-entropy between the policy's map and the pixels whose error is among the largest.

    Args:
        sampler: Its map is the prediction.
        state: With the ground truth.
        window: As in `hardest`.
    """
    height, width = cast(Tensor, state.sharp).shape[-2:]
    share = sampler.score(state)[:, :height, :width].clamp(1e-6, 1 - 1e-6)
    target = hardest(state, sampler.share, window)[:, :height, :width]
    return F.binary_cross_entropy(share, target.to(share.dtype))


@torch.no_grad()
def hardest(state: StageContext, share: float, window: int = 5) -> Bool[Tensor, "b h w"]:
    """Return the pixels of the joined, padded image whose smoothed error is in the top share of their patch.

    Pixels without any error are none of them, however few others there are.

    Args:
        state: With the ground truth; the error is `|OP_{k-1} - GT|`, mean over RGB, and 0 in padding.
        share: Of the pixels of a patch.
        window: Side of the square window that smooths the error, in pixels; odd.
    """
    sharp = cast(Tensor, state.sharp)
    height, width = sharp.shape[-2:]
    error = (state.restored[..., :height, :width] - sharp).abs().mean(dim=1, keepdim=True)
    error = F.avg_pool2d(error, window, 1, window // 2, count_include_pad=False)
    padding = (0, state.restored.shape[-1] - width, 0, state.restored.shape[-2] - height)
    patches = split(F.pad(error, padding, value=-1.0), *state.grid)
    size_of_patches, patches = patches.shape, patches.flatten(1)
    count = max(1, round(share * patches.shape[1]))
    threshold = patches.topk(count, dim=1).values[:, -1:]
    chosen = (patches >= threshold) & (patches > 0)
    return join(chosen.view(size_of_patches), *state.grid)[:, 0]
