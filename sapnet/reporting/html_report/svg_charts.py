"""Charts as inline SVG, in the colours of the page: curves over steps, and gains with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sapnet.reporting.html_report.elements import text

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 24, 24, 42
_ROW = 26
#: Width of a letter in pixels, for the room of labels.
_LETTER = 7


@dataclass(frozen=True)
class Curve:
    """A curve.

    Attributes:
        label: Its name in the legend.
        x: Positions on the horizontal axis.
        y: Values, as many.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Gain:
    """A gain with the bounds of its interval; None or infinite (the interval of one image) if there is none."""

    label: str
    value: float
    low: float | None
    high: float | None


class _Axis:
    """Maps values to pixels, with round ticks."""

    def __init__(self, values: Sequence[float], start: float, end: float, whole: bool = False):
        from matplotlib.ticker import MaxNLocator

        low, high = min(values), max(values)
        if low == high:
            margin = 1.0 if whole else 0.1 * abs(low) or 1.0
            low, high = low - margin, high + margin
        steps = MaxNLocator(nbins=6, integer=whole).tick_values(low, high)
        self.low, self.high = float(steps[0]), float(steps[-1])
        self.ticks = [float(step) for step in steps]
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        return round(self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start), 1)


def line_chart(title: str, x_label: str, y_label: str, curves: Sequence[Curve]) -> str:
    """Draw curves with axes and a legend; an empty text if no curve has a point.

    Args:
        title: Text below the chart, also its name for screen readers.
        x_label: Quantity of the horizontal axis.
        y_label: Quantity and unit of the vertical axis.
        curves: At most two, which differ in colour and dashes. Values that are not finite are left out.
    """
    finite = [[(x, y) for x, y in zip(c.x, c.y, strict=True) if np.isfinite(y)] for c in curves]
    points = [point for curve in finite for point in curve]
    if not points:
        return ""
    x = _Axis([point[0] for point in points], _LEFT, _WIDTH - _RIGHT, whole=True)
    y = _Axis([point[1] for point in points], _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid_across(y), _ticks_below(x, _HEIGHT - _BOTTOM), _x_label(x_label, _HEIGHT)]
    parts.append(f'<text x="4" y="14">{text(y_label)}</text>')
    for index, (curve, own) in enumerate(zip(curves, finite, strict=True)):
        places = [f"{x.at(a)},{y.at(b)}" for a, b in own]
        parts.append(f'<polyline class="series{index}" points="{" ".join(places)}"/>')
        dot = "dot" if index == 0 else "dot1"
        if len(own) <= 30:
            parts += [f'<circle class="{dot}" cx="{x.at(a)}" cy="{y.at(b)}" r="3"/>' for a, b in own]
        end = _WIDTH - _RIGHT - 130 * (len(curves) - index)
        parts.append(f'<line class="series{index}" x1="{end}" x2="{end + 22}" y1="10" y2="10"/>')
        parts.append(f'<text x="{end + 27}" y="14">{text(curve.label)}</text>')
    return _figure(title, _HEIGHT, parts)


def gains_chart(title: str, x_label: str, gains: Sequence[Gain]) -> str:
    """Draw gains with their intervals, one per row; an empty text without gains.

    Args:
        title: Text below the chart, also its name for screen readers.
        x_label: Quantity and unit of the horizontal axis.
        gains: The gains.
    """
    if not gains:
        return ""
    gains = [gain if _bounded(gain) else Gain(gain.label, gain.value, None, None) for gain in gains]
    left = min(_WIDTH // 2, 16 + _LETTER * max(len(gain.label) for gain in gains))
    bottom = _TOP + _ROW * len(gains)
    bounds = [bound for gain in gains for bound in (gain.value, gain.low, gain.high) if bound is not None]
    x = _Axis([0.0, *bounds], left, _WIDTH - _RIGHT)
    parts = [_ticks_below(x, bottom), _x_label(x_label, bottom + _BOTTOM)]
    parts.append(f'<line class="axis" x1="{x.at(0)}" x2="{x.at(0)}" y1="{_TOP}" y2="{bottom}"/>')
    letters = (left - 8) // _LETTER
    for index, gain in enumerate(gains):
        y = _TOP + _ROW * (index + 0.5)
        label = gain.label if len(gain.label) <= letters else "…" + gain.label[1 - letters :]
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{text(label)}</text>')
        if gain.low is not None and gain.high is not None:
            parts.append(f'<line class="series0" x1="{x.at(gain.low)}" x2="{x.at(gain.high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot" cx="{x.at(gain.value)}" cy="{y}" r="4"/>')
    return _figure(title, bottom + _BOTTOM, parts)


def _bounded(gain: Gain) -> bool:
    return gain.low is not None and gain.high is not None and bool(np.isfinite(gain.high - gain.low))


def _grid_across(axis: _Axis) -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{axis.at(tick)}" y2="{axis.at(tick)}"/>'
        f'<text x="{_LEFT - 6}" y="{axis.at(tick) + 4}" text-anchor="end">{tick:.5g}</text>'
        for tick in axis.ticks
    )


def _ticks_below(axis: _Axis, y: float) -> str:
    return f'<line class="axis" x1="{axis.at(axis.low)}" x2="{axis.at(axis.high)}" y1="{y}" y2="{y}"/>' + "".join(
        f'<line class="axis" x1="{axis.at(tick)}" x2="{axis.at(tick)}" y1="{y}" y2="{y + 4}"/>'
        f'<text x="{axis.at(tick)}" y="{y + 17}" text-anchor="middle">{tick:.7g}</text>'
        for tick in axis.ticks
    )


def _x_label(label: str, bottom: float) -> str:
    return f'<text x="{_WIDTH // 2}" y="{bottom - 6}" text-anchor="middle">{text(label)}</text>'


def _figure(title: str, height: float, parts: Sequence[str]) -> str:
    drawing = "\n".join(parts)
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{text(title)}">\n{drawing}\n</svg>'
        f"<figcaption>{text(title)}</figcaption></figure>"
    )
