"""Points on a canvas: how many a budget buys, how they are read (Eq. 1-2) and how they are put back (Eq. 3).

Inside the package a set of points is `Int64[Tensor, "b l"]`: raster indices `y * w + x`, distinct, and by custom sorted
(neighbours in memory are read together); unused slots hold -1 and stand at the end. `sample` and `restore` are the same
two operators in the paper's own notation: `[b, c, h, w]` tensors and normalised coordinates.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sapnet.errors import UserError
from sapnet.ops.points import gather, scatter


def canvas_stride(scale: int, candidates: str = "canvas") -> int:
    """Image pixels from one candidate position to the next at scale `r` (2, 4, 8, ...).

    `candidates="canvas"`: the grid of the next higher resolution, `H/(r/2) x W/(r/2)`; `"full"`: every pixel, as
    Sec. 3.1 speaks of it.
    """
    if candidates not in ("canvas", "full"):
        raise UserError(f"candidates={candidates!r} is unknown: use 'canvas' or 'full'.")
    if scale < 2 or scale % 2:
        raise UserError(f"scale {scale} has no canvas of twice its resolution: use an even number such as 2, 4 or 8.")
    return scale // 2 if candidates == "canvas" else 1


def canvas_size(height: int, width: int, scale: int, candidates: str = "canvas") -> tuple[int, int]:
    """Rows and columns of scale `r`'s canvas that an area of `height x width` pixels touches."""
    stride = canvas_stride(scale, candidates)
    return -(-height // stride), -(-width // stride)


def budget_count(height: int, width: int, scale: int, budget: float = 0.0, candidates: str = "canvas") -> int:
    """Number of points `L = round((1 + b) H W / r^2)` of one patch at one scale.

    `height x width` is the patch's area in image pixels without padding. `budget` is the relative change against a
    uniform grid of the same scale (-0.1 is the paper's NU-10%), above -1 and at most 3, which is every canvas position.
    Never more than the canvas has positions. Raises `UserError` for a budget outside that range.
    """
    if not -1 < budget <= 3:
        raise UserError(f"budget {budget} is out of range: use a number above -1 (nothing) and at most 3 (everything).")
    rows, columns = canvas_size(height, width, scale, candidates)
    return min(round((1 + budget) * height * width / scale**2), rows * columns)


def coordinates_from_points(points: Int64[Tensor, "b l"], height: int, width: int) -> Float[Tensor, "b l 2"]:
    """Normalised coordinates `(x, y) = ((column + 0.5) / width, (row + 0.5) / height)`; padded: (-1, -1)."""
    x = (points % width + 0.5) / width
    y = (torch.div(points, width, rounding_mode="floor") + 0.5) / height
    return torch.stack((x, y), dim=-1).masked_fill((points < 0)[..., None], -1)


def points_from_coordinates(psi: Float[Tensor, "b l 2"], height: int, width: int) -> Int64[Tensor, "b l"]:
    """Raster index of the pixel that holds each normalised coordinate `(x, y)`, in the order given.

    1 belongs to the last row or column; a negative coordinate marks a padded slot.
    """
    column = (psi[..., 0] * width).floor().long().clamp(max=width - 1)
    row = (psi[..., 1] * height).floor().long().clamp(max=height - 1)
    return torch.where((psi < 0).any(dim=-1), -1, row * width + column)


def sample(x: Float[Tensor, "b c h w"], psi: Float[Tensor, "b l 2"]) -> Float[Tensor, "b c l"]:
    """The sampling operator `s` of Eq. 1-2: `Y_l = X[psi_l^x, psi_l^y]`.

    `psi` holds normalised coordinates `(x, y)` in [0, 1] whose pixels are distinct; negative ones mark unused slots,
    which read 0.
    """
    points = points_from_coordinates(psi, *x.shape[-2:])
    return gather(x.movedim(1, -1), points).transpose(1, 2)


def restore(
    y: Float[Tensor, "b c l"], psi: Float[Tensor, "b l 2"], onto: Float[Tensor, "b c h w"] | tuple[int, int]
) -> Float[Tensor, "b c h w"]:
    """The reverse operator `s'` of Eq. 3: refined pixels are put directly back into the grid.

    `onto` holds the values of all other pixels, or is the grid's (height, width), and then they are 0.
    """
    if isinstance(onto, tuple):
        onto = y.new_zeros(*y.shape[:2], *onto)
    points = points_from_coordinates(psi, *onto.shape[-2:])
    return scatter(onto.movedim(1, -1), y.transpose(1, 2), points).movedim(-1, 1)
