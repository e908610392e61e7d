"""Contexts, a policy and checks for the tests of samplers."""

import torch
from torch import nn

from sapnet.sampling.context import StageContext
from sapnet.sampling.points import budget_count


class FixedPolicy(nn.Module):
    """A policy that returns the same logits for every image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, context):
        return self.logits.expand(len(context.blurred), -1, -1)


def make_context(size=(32, 48), padded=None, grid=(2, 1), batch=2, channels=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    h, w = padded or size
    restored, blurred = (torch.rand(batch, 3, h, w, generator=rng) for _ in range(2))
    features = torch.randn(batch, h, w, channels, generator=rng)
    sharp = torch.rand(batch, 3, *size, generator=rng)
    extent = (10 * torch.rand(batch, 1, *size, generator=rng) - 5).clamp(min=0)
    return StageContext(1, grid, size, features, restored, blurred, sharp, extent)


def check_points(sampling, context, budget, exact):
    """Check that points are sorted, distinct, in range and not in the padding, and that the budget is kept if exact."""
    rows, cols = context.grid
    h, w = context.blurred.shape[-2] // rows, context.blurred.shape[-1] // cols
    batch = len(context.blurred)
    for scale, points in sampling.points.items():
        stride = scale // 2
        assert points.dtype == torch.int64 and len(points) == rows * cols * batch
        for i, row in enumerate(points):
            used = row[row >= 0]
            assert (row[len(used) :] == -1).all() and (used.diff() > 0).all()
            patch = i // batch
            real_h = min(max(context.size[0] - patch // cols * h, 0), h)
            real_w = min(max(context.size[1] - patch % cols * w, 0), w)
            y, x = used // (w // stride) * stride, used % (w // stride) * stride
            assert (y < real_h).all() and (x < real_w).all(), "a point is in the padding"
            count = budget_count(real_h, real_w, scale, budget)
            assert sampling.counts[scale][i] == count
            if exact:
                assert len(used) == count
