"""The patch hierarchy: splitting images into patches stacked on the batch axis, and joining them."""

import torch
from torch import Tensor


def split(x: Tensor, rows: int, cols: int, height_dim: int = 2) -> Tensor:
    """Split each image of a batch into `rows x cols` equal patches, stacked on the batch axis.

    The patch at grid position `(i, j)` of image `n` has the batch index `(i * cols + j) * b + n`.

    Args:
        x: `[b, c, h, w]`, or a canvas `[b, h, w, c]` with `height_dim=1`.
        rows: Number of patches along the height, a divisor of the height.
        cols: Number of patches along the width, a divisor of the width.
        height_dim: Dimension of the height; the width is the next one.

    Raises:
        ValueError: The image does not divide into equal patches.
    """
    height, width = x.shape[height_dim], x.shape[height_dim + 1]
    if height % rows or width % cols:
        raise ValueError(f"{height}x{width} does not divide into {rows}x{cols} equal patches")
    if rows == cols == 1:
        return x
    bands = x.split(height // rows, dim=height_dim)
    return torch.cat([patch for band in bands for patch in band.split(width // cols, dim=height_dim + 1)])


def join(x: Tensor, rows: int, cols: int, height_dim: int = 2) -> Tensor:
    """Join the patches of `split`; its exact inverse.

    Raises:
        ValueError: The batch size is not a multiple of `rows * cols`.
    """
    if x.shape[0] % (rows * cols):
        raise ValueError(f"a batch of {x.shape[0]} does not hold whole grids of {rows}x{cols} patches")
    if rows == cols == 1:
        return x
    patches = x.chunk(rows * cols)
    bands = [torch.cat(patches[i * cols : (i + 1) * cols], dim=height_dim + 1) for i in range(rows)]
    return torch.cat(bands, dim=height_dim)
