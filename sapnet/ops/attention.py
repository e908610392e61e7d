"""Compiled CPU operator for the cluster attentions of a block and their fusion with the local branch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from sapnet.errors import UserError
from sapnet.ops import cpu


class Branch(NamedTuple):
    """Inputs and weights of one attention.

    Attributes:
        source: Features to pool, on the grid; None: the grid itself.
        p: Normalised `P` at the points.
        query: Weight of `f_q`.
        query_bias: Bias of `f_q`.
        space: Weight of the 3x3 convolution of `M_S`.
        space_bias: Bias of the convolution of `M_S`.
        channel: Weight of the linear layer of `M_C`.
        channel_bias: Bias of the linear layer of `M_C`.
    """

    source: Float[Tensor, "b h w c"] | None
    p: Float[Tensor, "b l maps"]
    query: Float[Tensor, "maps c"]
    query_bias: Float[Tensor, " maps"]
    space: Float[Tensor, "1 c 3 3"]
    space_bias: Float[Tensor, " 1"]
    channel: Float[Tensor, "c c"]
    channel_bias: Float[Tensor, " c"]


def attend_and_fuse(
    grid: Float[Tensor, "b h w c"],
    local: Float[Tensor, "b l c"],
    fusion: Float[Tensor, "b l 1"],
    branches: Sequence[Branch],
) -> Float[Tensor, "b l c"]:
    """Return `lerp(local, sum of the attentions, fusion)` (Eq. 16 and 20), computed by the compiled kernel.

    All tensors must be accepted by `backend.can_fuse` and have the same dtype. Differentiable once. Results are
    reproducible for the same number of threads.

    Args:
        grid: The receiver's features on the regular grid, from which `Q` and the masks are computed.
        local: The local branch at the points.
        fusion: `M_fus` at the points.
        branches: One or two attentions.

    Raises:
        UserError: The shape of a source, or the dtype of a tensor, differs from that of the grid.
    """
    inputs = (grid, local, fusion, *(x for branch in branches for x in branch))
    # The kernel receives only addresses and cannot check dtypes.
    for x in inputs:
        if x is not None and x.dtype != grid.dtype:
            raise UserError(f"the grid is {grid.dtype}, another tensor of the attention {x.dtype}: convert one of them")
    for branch in branches:
        if branch.source is not None and branch.source.shape != grid.shape:
            raise UserError(f"the source must be {list(grid.shape)} like the grid, not {list(branch.source.shape)}")
    return _Attention.apply(*inputs)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        inputs = [x if x is None else x.contiguous() for x in inputs]
        out, state = cpu.attention_forward(inputs)
        ctx.save_for_backward(*inputs, state)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        *inputs, state = ctx.saved_tensors
        # Only the gradients of the sources are expensive enough to be skipped.
        needed = [x is not None and (i % 8 != 3 or ctx.needs_input_grad[i]) for i, x in enumerate(inputs)]
        return tuple(cpu.attention_backward(grad, inputs, state, needed))
