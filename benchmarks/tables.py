"""What the benchmark of the networks found, as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sapnet.provenance import as_columns

Line = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table; the first `left` columns are text, the others figures."""
    marks = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))


def report(record: Line) -> str:
    """Return operations and bytes, the floor, times, ratios and memory, in this order."""
    where = record["environment"]
    said = ", ".join(f"{key} {value}" for key, value in where.items())
    parts = [
        f"{origin_line(record['provenance'])}; {said}.",
        *(["The smallest widths: the figures say nothing."] if record["quick"] else []),
        "### To do, one forward pass",
        _counts(record["counts"]),
        _floor(record["floor"]),
        "### Seconds",
        _forwards(record["timings"]),
        "Seconds are medians, in brackets the smallest and largest. `x floor`: against the convolution at its best;"
        " `x beside`: against the convolution around each sample.",
        _steps(record["timings"]),
        *_ratios(record["ratios"]),
        "### Peak memory of a forward pass, MiB",
        _memory(record["memory"]),
        _repeats(record),
    ]
    return "\n\n".join(parts)


def origin_line(origin: Line) -> str:
    """Return command, commit, configuration hash and versions in one line."""
    cells = as_columns(origin)
    text = f"Command: `{cells['command']}`, at {cells['commit']}, config hash {cells['config_hash']}"
    return f"{text}; {cells['versions']}"


def _counts(lines: Sequence[Line]) -> str:
    head = ["network", "size", "GMACs", "parameters, M", "parameters, MiB", "written, MiB", "read, MiB"]
    rows = (
        [
            *(line["model"], line["size"], f"{line['gmacs']:.4g}", f"{line['parameters'] / 1e6:.2f}"),
            *(_mebibytes(number) for number in (4 * line["parameters"], line["written_bytes"], line["read_bytes"])),
        ]
        for line in lines
    )
    return table(head, rows, 2) + "\n\nWritten: the results of all operators, most of them activations."


def _floor(floor: Line) -> str:
    return (
        f"Arithmetic floor: {floor['gmacs_per_s']:.1f} GMAC/s, the fastest of {len(floor['calibrations'])} runs of a "
        f"plain convolution ({floor['convolution']}). Copying: {floor['copied_bytes_per_s'] / 1e9:.1f} GB/s."
    )


def _forwards(lines: Sequence[Line]) -> str:
    head = ["forward pass", "size", "seconds", "floor", "GMAC/s", "x floor", "goal", "x beside", "rounds", "noisy"]
    rows = (
        [
            *(line["model"], line["size"], _spread(line["seconds"], ".3f"), f"{line['floor_seconds']:.3f}"),
            *(f"{line['gmacs_per_s']:.1f}", f"{line['times_floor']:.2f}", _goal(line["goal"])),
            *(f"{line['times_convolution']:.2f}", str(line["rounds"]), str(line["noisy"])),
        ]
        for line in lines
        if line["way"] == "forward"
    )
    return table(head, rows, 2)


def _steps(lines: Sequence[Line]) -> str:
    head = ["training step, batch 1", "size", "seconds", "x forward", "goal", "rounds", "noisy"]
    rows = (
        [
            *(line["model"], line["size"], _spread(line["seconds"], ".3f"), f"{line['times_forward']:.2f}"),
            *(_goal(line["goal"]), str(line["rounds"]), str(line["noisy"])),
        ]
        for line in lines
        if line["way"] == "step"
    )
    return table(head, rows, 2)


def _ratios(lines: Sequence[Line]) -> list[str]:
    if not lines:
        return []
    head = ["non-uniform to uniform", "size", "what", "GMACs", "seconds", "goal"]
    rows = (
        [
            *(f"{line['model']} / {line['to']}", line["size"], line["way"]),
            *(f"{line['gmacs']:.3f}", _spread(line["seconds"], ".3f"), _goal(line["goal"])),
        ]
        for line in lines
    )
    return ["### What sampling costs", table(head, rows, 3) + "\n\nRatios of seconds are taken within each round."]


def _memory(lines: Sequence[Line]) -> str:
    head = ["network", "size", "peak beside parameters", "parameters", "together", "goal"]
    rows = (
        [
            *(line["model"], line["size"], _mebibytes(line["peak_bytes"]), _mebibytes(line["parameter_bytes"])),
            *(_mebibytes(line["total_bytes"]), _mebibytes(line["goal_bytes"], "")),
        ]
        for line in lines
    )
    return table(head, rows, 2)


def _repeats(record: Line) -> str:
    repeated, noisy = (sum(line[key] for line in record["timings"]) for key in ("repeated", "noisy"))
    rounds = sum(line["rounds"] for line in record["timings"])
    return (
        f"Of {rounds} samples {noisy} stayed noisy after {repeated} repeats: a convolution beside them was more than "
        f"{record['floor']['tolerance']:.0%} off the run's median. Where a network has calm samples, they alone count."
    )


def _spread(spread: Line, form: str) -> str:
    return f"{spread['middle']:{form}} [{spread['low']:{form}}, {spread['high']:{form}}]"


def _goal(goal: float | None) -> str:
    return "" if goal is None else f"{goal:.2f}"


def _mebibytes(number: int | None, absent: str = "not measured here") -> str:
    return absent if number is None else f"{number / 2**20:.1f}"
