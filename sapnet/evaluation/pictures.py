"""Panels of images and heat maps with titles and colour bars, and matplotlib figures as RGB arrays."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = UInt8[np.ndarray, "_ _ 3"]

_WHITE = (255, 255, 255)
_GAP = 6
_MIN_WIDTH, _MAX_WIDTH = 192, 640
_COLOUR_MAP = "turbo"
_DPI = 100


@dataclass(frozen=True)
class HeatMap:
    """Map of one value per pixel, displayed in colour.

    Attributes:
        values: The values. Dark blue is 0, red is `top` and above.
        top: Upper end of the colour scale, by default the largest value.
        unit: Unit of the values, printed at the colour bar.
    """

    values: Float[Tensor, "h w"]
    top: float | None = None
    unit: str = ""


Cell = Float[Tensor, "3 _ _"] | HeatMap | Picture


@contextmanager
def figure(width: int, height: int, dpi: int = _DPI) -> "Iterator[Figure]":
    """Open a matplotlib figure of a fixed style, independent of the user's matplotlib settings.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        dpi: Pixels per inch, which set the size of text and lines.
    """
    # Imported here because it takes 0.3 s and few commands draw.
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context("default"):
        # Matplotlib truncates the size in pixels: half a pixel more makes it exact.
        yield Figure(figsize=((width + 0.5) / dpi, (height + 0.5) / dpi), dpi=dpi)


def rasterise(drawing: "Figure") -> Picture:
    """Return a matplotlib figure as an RGB array."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(drawing)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def picture(image: Float[Tensor, "3 h w"]) -> Picture:
    """Convert an RGB image in [0, 1] to 8 bits; values outside are clipped and NaN is black."""
    clean = torch.nan_to_num(image.detach().float().cpu(), nan=0.0).clamp(0, 1)
    return (clean * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def heat_picture(heat: HeatMap) -> Picture:
    """Draw a heat map with a colour bar below it."""
    values = torch.nan_to_num(heat.values.detach().float().cpu(), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max()) if heat.top is None else heat.top
    colours = _colours((values / max(top, 1e-12)).clamp(0, 1).numpy())
    height, width = colours.shape[:2]
    gap = np.full((max(2, height // 96), width, 3), 255, np.uint8)
    return np.concatenate([colours, gap, _colour_bar(width, top, heat.unit)])


def heat_map(extent: Float[Tensor, "1 h w"], top: float | None = None) -> HeatMap:
    """Return the heat map of a blur extent in pixels.

    Args:
        extent: Blur extent.
        top: Upper end of the colour scale in pixels, by default the largest extent.
    """
    return HeatMap(extent[0], top, "px")


def with_points(image: Float[Tensor, "3 h w"], chosen: Bool[Tensor, "h2 w2"]) -> Float[Tensor, "3 h w"]:
    """Overlay the chosen pixels on an image in translucent red, as in Fig. 1 and Fig. 9.

    Args:
        image: Image in [0, 1].
        chosen: Chosen pixels, with the padding of the image at the bottom and right, if any.
    """
    chosen = chosen[: image.shape[1], : image.shape[2]]
    red = image.new_tensor([1.0, 0.0, 0.0])[:, None, None]
    return torch.where(chosen, 0.35 * image.clamp(0, 1) + 0.65 * red, image)


def panel(rows: Sequence[Sequence[Cell]], titles: Sequence[str] | Sequence[Sequence[str]]) -> Picture:
    """Arrange images and heat maps in a grid on white.

    Args:
        rows: Images [3, h, w] in [0, 1], heat maps, or 8-bit pictures. Rows may differ in length and cells in size.
            All cells are scaled to the width of the widest one, limited to 192 to 640 pixels.
        titles: One title per column, drawn above the first row, or one list per row, drawn above each row.

    Raises:
        ValueError: There is no cell.
    """
    if not rows or not any(rows):
        raise ValueError("A panel needs at least one picture.")
    width = min(max(max(_width(cell) for row in rows for cell in row), _MIN_WIDTH), _MAX_WIDTH)
    drawn = [[_scaled_picture(cell, width) for cell in row] for row in rows]
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


def _scaled_picture(cell: Cell, width: int) -> Picture:
    # Heat maps are scaled before they are drawn, so that the text of the colour bar stays legible.
    if isinstance(cell, HeatMap):
        values = _resize(cell.values.detach().float().cpu().numpy(), width)
        return heat_picture(HeatMap(torch.from_numpy(values), cell.top, cell.unit))
    return _resize(picture(cell) if isinstance(cell, Tensor) else cell, width)


def _colours(shares: Float[np.ndarray, "h w"]) -> Picture:
    from matplotlib import colormaps

    return colormaps[_COLOUR_MAP](shares, bytes=True)[..., :3].copy()


def _font_size(width: int) -> float:
    """Return a font size in points that suits a cell of `width` pixels."""
    return min(14.0, max(6.0, width / 28))


def _line_height(width: int) -> int:
    """Return the height in pixels of a line of text in a cell of `width` pixels."""
    return round(1.2 * _font_size(width) * _DPI / 72) + 6


def _title(width: int, text: str) -> Picture:
    with figure(width, _line_height(width)) as drawing:
        label = drawing.text(0.5, 0.5, text, size=_font_size(width), ha="center", va="center", parse_math=False)
        needed = label.get_window_extent().width
        label.set_fontsize(_font_size(width) * min(1.0, (width - 2) / max(1.0, needed)))
        return rasterise(drawing)


def _colour_bar(width: int, top: float, unit: str) -> Picture:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar_height, size = max(4, width // 32), 0.85 * _font_size(width)
    height = bar_height + _line_height(width)
    scale = max(top, 1e-12)
    with figure(width, height) as drawing:
        axes = drawing.add_axes((0, 1 - bar_height / height, 1, bar_height / height))
        bar = drawing.colorbar(ScalarMappable(Normalize(0, scale), _COLOUR_MAP), cax=axes, orientation="horizontal")
        bar.outline.set_visible(False)
        bar.set_ticks([0, scale / 2, scale], labels=["0", f"{top / 2:.3g}", f"{top:.3g} {unit}".strip()])
        axes.tick_params(labelsize=size, length=2, pad=2)
        # The outer labels would be cut at the edges of the picture.
        for label, alignment in zip(axes.get_xticklabels(), ("left", "center", "right"), strict=True):
            label.set_horizontalalignment(alignment)
        return rasterise(drawing)


def _resize(cell: np.ndarray, width: int) -> np.ndarray:
    if cell.shape[1] == width:
        return cell
    height = max(1, round(cell.shape[0] * width / cell.shape[1]))
    # Enlarged pixels stay visible as squares.
    method = cv2.INTER_NEAREST if cell.shape[1] < width else cv2.INTER_AREA
    return cv2.resize(cell, (width, height), interpolation=method)


def _join_columns(cells: Sequence[Picture]) -> Picture:
    height = max(cell.shape[0] for cell in cells)
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    padded = [_pad(cell, height, cell.shape[1]) for cell in cells]
    return np.concatenate([part for cell in padded for part in (cell, gap)][:-1], axis=1)


def _join_rows(lines: Sequence[Picture]) -> Picture:
    width = max(line.shape[1] for line in lines)
    gap = np.full((_GAP, width, 3), 255, np.uint8)
    return np.concatenate([part for line in lines for part in (_pad(line, line.shape[0], width), gap)][:-1])


def _pad(cell: Picture, height: int, width: int) -> Picture:
    below, right = height - cell.shape[0], width - cell.shape[1]
    return cv2.copyMakeBorder(cell, 0, below, 0, right, cv2.BORDER_CONSTANT, value=_WHITE)
