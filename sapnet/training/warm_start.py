"""Warm start of the policy: it learns to predict the largest errors of the previous stage."""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sapnet.layers.hierarchy import join, split
from sapnet.sampling.context import StageContext
from sapnet.sampling.learned import LearnedSampler


def imitation_loss(sampler: LearnedSampler, state: StageContext, window: int = 5) -> Float[Tensor, ""]:
    """Return the binary cross-entropy between the policy's map and the pixels with the largest errors.

    Args:
        sampler: Sampler whose map is the prediction.
        state: Inputs of the sampler, with the ground truth.
        window: Window of `hardest_pixels`.
    """
    height, width = cast(Tensor, state.sharp).shape[-2:]
    share = sampler.score(state)[:, :height, :width].clamp(1e-6, 1 - 1e-6)
    target = hardest_pixels(state, sampler.share, window)[:, :height, :width]
    return F.binary_cross_entropy(share, target.to(share.dtype))


@torch.no_grad()
def hardest_pixels(state: StageContext, share: float, window: int = 5) -> Bool[Tensor, "b h w"]:
    """Return a mask of the joined, padded image: pixels whose smoothed error is in the top share of their patch.

    Pixels without error are never included.

    Args:
        state: Inputs of the sampler, with the ground truth. The error is `|OP_{k-1} - GT|`, averaged over RGB.
        share: Share of the pixels of a patch.
        window: Side in pixels of the square window that smooths the error; odd.
    """
    sharp = cast(Tensor, state.sharp)
    height, width = sharp.shape[-2:]
    error = (state.restored[..., :height, :width] - sharp).abs().mean(dim=1, keepdim=True)
    error = F.avg_pool2d(error, window, 1, window // 2, count_include_pad=False)
    padding = (0, state.restored.shape[-1] - width, 0, state.restored.shape[-2] - height)
    patches = split(F.pad(error, padding, value=-1.0), *state.grid)
    patch_shape, patches = patches.shape, patches.flatten(1)
    count = max(1, round(share * patches.shape[1]))
    threshold = patches.topk(count, dim=1).values[:, -1:]
    hardest = (patches >= threshold) & (patches > 0)
    return join(hardest.view(patch_shape), *state.grid)[:, 0]
