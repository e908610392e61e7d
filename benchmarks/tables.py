"""Results of the benchmark of the networks as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from sapnet.markdown import markdown_table
from sapnet.provenance import as_columns

Line = Mapping[str, Any]


def report(record: Line) -> str:
    """Return operations and bytes, the arithmetic floor, times, ratios and memory."""
    environment = ", ".join(f"{key} {value}" for key, value in record["environment"].items())
    parts = [
        f"{origin_line(record['provenance'])}; {environment}.",
        *(["Smallest widths: the values are meaningless."] if record["quick"] else []),
        "### Operations of a forward pass",
        _counts(record["counts"]),
        _floor(record["floor"]),
        "### Seconds",
        _forwards(record["timings"]),
        "Seconds are medians, in brackets the smallest and largest. `x floor`: relative to the best run of the"
        " convolution; `x beside`: relative to the runs around each sample.",
        _steps(record["timings"]),
        *_ratios(record["ratios"]),
        "### Peak memory of a forward pass, MiB",
        _memory(record["memory"]),
        _repeats(record),
    ]
    return "\n\n".join(parts)


def origin_line(origin: Line) -> str:
    """Return command, commit, configuration hash and versions as one line."""
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
    return markdown_table(head, rows, 2) + "\n\nWritten: the results of all operators, mostly activations."


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
    return markdown_table(head, rows, 2)


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
    return markdown_table(head, rows, 2)


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
    return [
        "### Cost of sampling",
        markdown_table(head, rows, 3) + "\n\nRatios of times are computed within each round.",
    ]


def _memory(lines: Sequence[Line]) -> str:
    head = ["network", "size", "peak beside parameters", "parameters", "together", "goal"]
    rows = (
        [
            *(line["model"], line["size"], _mebibytes(line["peak_bytes"]), _mebibytes(line["parameter_bytes"])),
            *(_mebibytes(line["total_bytes"]), _mebibytes(line["goal_bytes"], "")),
        ]
        for line in lines
    )
    return markdown_table(head, rows, 2)


def _repeats(record: Line) -> str:
    repeated, noisy = (sum(line[key] for line in record["timings"]) for key in ("repeated", "noisy"))
    rounds = sum(line["rounds"] for line in record["timings"])
    return (
        f"Of {rounds} samples {noisy} stayed noisy after {repeated} repeats: the convolution before or after them "
        f"differed by more than {record['floor']['tolerance']:.0%} from its median. Noisy samples are used only if a "
        "network has no others."
    )


def _spread(spread: Line, form: str) -> str:
    return f"{spread['middle']:{form}} [{spread['low']:{form}}, {spread['high']:{form}}]"


def _goal(goal: float | None) -> str:
    return "" if goal is None else f"{goal:.2f}"


def _mebibytes(number: int | None, absent: str = "not measured here") -> str:
    return absent if number is None else f"{number / 2**20:.1f}"
