"""Panels of images and heat maps with titles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Picture = UInt8[np.ndarray, "_ _ 3"]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _INK = (255, 255, 255), (40, 40, 40)
_GAP = 6
_NARROWEST, _WIDEST = 192, 640


@dataclass(frozen=True)
class HeatMap:
    """One value per pixel, drawn in colours from dark blue (0) to red (`top` and above).

    Attributes:
        values: The values.
        top: Value of the colour red; None for the largest value of the map.
        unit: Unit of the values, printed on the scale.
    """

    values: Float[Tensor, "h w"]
    top: float | None = None
    unit: str = ""


Cell = Float[Tensor, "3 _ _"] | HeatMap | Picture


def picture(image: Float[Tensor, "3 h w"]) -> Picture:
    """Convert an RGB image in [0, 1] to 8 bits; other values are clipped, and NaN becomes black."""
    clean = torch.nan_to_num(image.detach().float().cpu(), nan=0.0).clamp(0, 1)
    return (clean * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def heat_picture(heat: HeatMap) -> Picture:
    """Draw a heat map with a colour scale below."""
    values = torch.nan_to_num(heat.values.detach().float().cpu(), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max()) if heat.top is None else heat.top
    levels = (values / max(top, 1e-12)).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    colours = _apply_colours(levels)
    height, width = levels.shape
    gap = np.full((max(2, height // 96), width, 3), 255, np.uint8)
    bar = _apply_colours(np.tile(np.linspace(0, 255, width).astype(np.uint8), (max(4, height // 32), 1)))
    return np.concatenate([colours, gap, bar, _scale_text(width, f"{top:.3g} {heat.unit}".strip())])


def heat_map(extent: Float[Tensor, "1 h w"], top: float | None = None) -> HeatMap:
    """Return the heat map of a blur extent in pixels, up to `top` pixels (None for its largest value)."""
    return HeatMap(extent[0], top, "px")


def with_points(image: Float[Tensor, "3 h w"], chosen: Bool[Tensor, "h w"]) -> Float[Tensor, "3 h w"]:
    """Blend the chosen pixels of an image with red, as in Fig. 1 and 9."""
    chosen = chosen[: image.shape[1], : image.shape[2]]
    red = image.new_tensor([1.0, 0.0, 0.0])[:, None, None]
    return torch.where(chosen, 0.35 * image.clamp(0, 1) + 0.65 * red, image)


def panel(rows: Sequence[Sequence[Cell]], titles: Sequence[str] | Sequence[Sequence[str]]) -> Picture:
    """Draw rows of pictures with titles on a white background.

    Args:
        rows: Images in [0, 1], heat maps or pictures. Rows may differ in length, cells in size; all cells are scaled to
            the width of the widest one (at least 192, at most 640 pixels).
        titles: One title per column, drawn above the first row, or a list of titles per row.

    Raises:
        ValueError: There is no picture.
    """
    if not rows or not any(rows):
        raise ValueError("a panel needs a picture")
    widest = max(_width(cell) for row in rows for cell in row)
    width = min(max(widest, _NARROWEST), _WIDEST)
    drawn = [[_draw_cell(cell, width) for cell in row] for row in rows]
    shared_titles = isinstance(titles[0], str) if titles else True
    lines = []
    for number, row in enumerate(drawn):
        names = cast("Sequence[str]", titles if shared_titles else titles[number])
        cells = list(row)
        if names and (number == 0 or not shared_titles):
            cells = [np.concatenate([_title(width, name), cell]) for name, cell in zip(names, cells, strict=True)]
        lines.append(_join_columns(cells))
    return _join_rows(lines)


def _width(cell: Cell) -> int:
    return (cell.values if isinstance(cell, HeatMap) else cell).shape[1 if isinstance(cell, np.ndarray) else -1]


def _draw_cell(cell: Cell, width: int) -> Picture:
    # A heat map is scaled before it is drawn: its text keeps its size.
    if isinstance(cell, HeatMap):
        values = _resize(cell.values.detach().float().cpu().numpy(), width)
        return heat_picture(HeatMap(torch.from_numpy(values), cell.top, cell.unit))
    return _resize(picture(cell) if isinstance(cell, Tensor) else cell, width)


def _apply_colours(levels: UInt8[np.ndarray, "h w"]) -> Picture:
    return cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1].copy()


def _text_size(width: int) -> tuple[float, int, int]:
    # Font scale, line thickness and line height for a picture of this width.
    scale = min(0.9, max(0.35, width / 480))
    thickness = 2 if scale > 0.7 else 1
    (_, height), below = cv2.getTextSize("Hg", _FONT, scale, thickness)
    return scale, thickness, height + below + 6


def _draw_text(canvas: Picture, text: str, left: int, scale: float, thickness: int) -> None:
    (_, height), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    cv2.putText(canvas, text, (left, (canvas.shape[0] + height) // 2), _FONT, scale, _INK, thickness, cv2.LINE_AA)


def _title(width: int, text: str) -> Picture:
    scale, thickness, height = _text_size(width)
    needed = cv2.getTextSize(text, _FONT, scale, thickness)[0][0]
    scale *= min(1.0, (width - 2) / max(1, needed))
    strip = np.full((height, width, 3), 255, np.uint8)
    needed = cv2.getTextSize(text, _FONT, scale, thickness)[0][0]
    _draw_text(strip, text, max(0, (width - needed) // 2), scale, thickness)
    return strip


def _scale_text(width: int, top: str) -> Picture:
    scale, thickness, height = _text_size(width)
    scale *= 0.8
    strip = np.full((height, width, 3), 255, np.uint8)
    needed = cv2.getTextSize(top, _FONT, scale, thickness)[0][0]
    _draw_text(strip, "0", 2, scale, thickness)
    _draw_text(strip, top, max(12, width - needed - 2), scale, thickness)
    return strip


def _resize(cell: np.ndarray, width: int) -> np.ndarray:
    if cell.shape[1] == width:
        return cell
    height = max(1, round(cell.shape[0] * width / cell.shape[1]))
    # Nearest-neighbour enlargement keeps the pixels visible.
    method = cv2.INTER_NEAREST if cell.shape[1] < width else cv2.INTER_AREA
    return cv2.resize(cell, (width, height), interpolation=method)


def _join_columns(cells: Sequence[Picture]) -> Picture:
    height = max(cell.shape[0] for cell in cells)
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    padded = [_pad_white(cell, height, cell.shape[1]) for cell in cells]
    return np.concatenate([part for cell in padded for part in (cell, gap)][:-1], axis=1)


def _join_rows(lines: Sequence[Picture]) -> Picture:
    width = max(line.shape[1] for line in lines)
    gap = np.full((_GAP, width, 3), 255, np.uint8)
    return np.concatenate([part for line in lines for part in (_pad_white(line, line.shape[0], width), gap)][:-1])


def _pad_white(cell: Picture, height: int, width: int) -> Picture:
    return cv2.copyMakeBorder(
        cell, 0, height - cell.shape[0], 0, width - cell.shape[1], cv2.BORDER_CONSTANT, value=_WHITE
    )
