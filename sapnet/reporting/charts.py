"""Charts of a study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sapnet.evaluation.pictures import Picture, figure, rasterise
from sapnet.reporting.study import Study

_WIDTH, _ROW_HEIGHT, _MARGIN, _DPI = 1120, 40, 170, 150
_MEASURED, _PAPER, _ZERO = "tab:blue", "tab:red", "0.6"


def gains_chart(study: Study, lines: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Draw the PSNR gain of each row over the reference, measured and from the paper.

    Args:
        study: The study with the paper's values.
        lines: Lines of `compare`, one per row. Rows without a gain are left out.

    Returns:
        The chart, or None if no row has a gain.
    """
    lines = [line for line in lines if "gain_db" in line]
    if not lines:
        return None
    gains, low, high = (
        np.array([line[key] for line in lines]) for key in ("gain_db", "gain_ci95_low_db", "gain_ci95_high_db")
    )
    positions = range(len(lines))
    with figure(_WIDTH, _ROW_HEIGHT * len(lines) + _MARGIN, _DPI) as drawing:
        drawing.set_layout_engine("constrained")
        axes = drawing.add_subplot()
        axes.axvline(0, color=_ZERO, linewidth=1)
        style: dict[str, Any] = {"fmt": "o", "markersize": 5, "elinewidth": 2, "color": _MEASURED}
        axes.errorbar(gains, positions, xerr=(gains - low, high - gains), label="measured, 95% interval", **style)
        paper = _paper_gains(study, [line["row"] for line in lines])
        if paper:
            axes.plot(list(paper.values()), list(paper), "o", fillstyle="none", color=_PAPER, label="paper")
        axes.set_yticks(positions, labels=[line["row"] for line in lines])
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_xlabel(f"PSNR gain over {study.reference} (dB)")
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        drawing.legend(loc="outside upper right", ncols=2, frameon=False)
        return rasterise(drawing)


def _paper_gains(study: Study, rows: Sequence[str]) -> dict[int, float]:
    """Return the paper's gains in dB, printed or derived, by the position of the row."""
    psnr = {row: values.get("paper_psnr_db", values.get("derived_psnr_db")) for row, values in study.paper.items()}
    base = psnr.get(study.reference)
    if base is None:
        return {}
    return {place: value - base for place, row in enumerate(rows) if (value := psnr.get(row)) is not None}
