"""Points on a canvas: their number for a budget, sampling (Eq. 1-2) and writing back (Eq. 3).

Inside the package, points are an `Int64[Tensor, "b l"]` of distinct raster indices `y * w + x`, usually sorted because
neighbours in memory are then read together. Unused slots at the end hold -1. `sample` and `restore` are the operators
in the notation of the paper, with `[b, c, h, w]` tensors and normalised coordinates.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sapnet.errors import UserError
from sapnet.ops.points import gather, scatter


def canvas_stride(scale: int, candidates: str = "canvas") -> int:
    """Return the image pixels between candidate positions at scale `r`.

    Args:
        scale: `r`: 2, 4, 8 and so on.
        candidates: `"canvas"`: the grid of the next higher resolution, `H/(r/2) x W/(r/2)`; `"full"`: every pixel, as
            in Sec. 3.1.

    Raises:
        UserError: The scale or the candidates are invalid.
    """
    if candidates not in ("canvas", "full"):
        raise UserError(f"candidates={candidates!r} is unknown: use 'canvas' or 'full'.")
    if scale < 2 or scale % 2:
        raise UserError(f"scale {scale} has no canvas of twice its resolution: use an even number such as 2, 4 or 8.")
    return scale // 2 if candidates == "canvas" else 1


def canvas_size(height: int, width: int, scale: int, candidates: str = "canvas") -> tuple[int, int]:
    """Return the rows and columns of the canvas of scale `r` that an area of `height x width` pixels overlaps."""
    stride = canvas_stride(scale, candidates)
    return -(-height // stride), -(-width // stride)


def budget_count(height: int, width: int, scale: int, budget: float = 0.0, candidates: str = "canvas") -> int:
    """Return the number of points `L = round((1 + b) H W / r^2)` of one patch at one scale.

    Args:
        height: Rows of the patch in image pixels, without padding.
        width: Columns of the patch in image pixels, without padding.
        scale: `r`.
        budget: `b`: change relative to a uniform grid of the same scale (-0.1 is the paper's NU-10%), above -1 and at
            most 3, which is every canvas position.
        candidates: As in `canvas_stride`.

    Returns:
        `L`, limited to the number of canvas positions.

    Raises:
        UserError: The budget is out of range.
    """
    if not -1 < budget <= 3:
        raise UserError(f"budget {budget} is out of range: use a number above -1 (nothing) and at most 3 (everything).")
    rows, columns = canvas_size(height, width, scale, candidates)
    return min(round((1 + budget) * height * width / scale**2), rows * columns)


def coordinates_from_points(points: Int64[Tensor, "b l"], height: int, width: int) -> Float[Tensor, "b l 2"]:
    """Return coordinates `(x, y) = ((column + 0.5) / width, (row + 0.5) / height)`, or (-1, -1) for unused slots."""
    x = (points % width + 0.5) / width
    y = (torch.div(points, width, rounding_mode="floor") + 0.5) / height
    return torch.stack((x, y), dim=-1).masked_fill((points < 0)[..., None], -1)


def points_from_coordinates(psi: Float[Tensor, "b l 2"], height: int, width: int) -> Int64[Tensor, "b l"]:
    """Return the raster index of the pixel that contains each normalised coordinate `(x, y)`, in the same order.

    The coordinate 1 belongs to the last row or column. A negative coordinate marks an unused slot.
    """
    column = (psi[..., 0] * width).floor().long().clamp(max=width - 1)
    row = (psi[..., 1] * height).floor().long().clamp(max=height - 1)
    return torch.where((psi < 0).any(dim=-1), -1, row * width + column)


def sample(x: Float[Tensor, "b c h w"], psi: Float[Tensor, "b l 2"]) -> Float[Tensor, "b c l"]:
    """Apply the sampling operator `s` of Eq. 1-2: `Y_l = X[psi_l^x, psi_l^y]`.

    Args:
        x: Features.
        psi: Normalised coordinates `(x, y)` in [0, 1] of distinct pixels. Negative coordinates mark unused slots, which
            read 0.
    """
    points = points_from_coordinates(psi, *x.shape[-2:])
    return gather(x.movedim(1, -1), points).transpose(1, 2)


def restore(
    y: Float[Tensor, "b c l"], psi: Float[Tensor, "b l 2"], onto: Float[Tensor, "b c h w"] | tuple[int, int]
) -> Float[Tensor, "b c h w"]:
    """Apply the reverse operator `s'` of Eq. 3, which writes refined pixels back into the grid.

    Args:
        y: Refined pixels.
        psi: Their coordinates, as in `sample`.
        onto: Values of all other pixels, or (height, width) of a grid of zeros.
    """
    if isinstance(onto, tuple):
        onto = y.new_zeros(*y.shape[:2], *onto)
    points = points_from_coordinates(psi, *onto.shape[-2:])
    return scatter(onto.movedim(1, -1), y.transpose(1, 2), points).movedim(-1, 1)
