"""Tables 1 and 2 from whole-image results: the paper's figures quoted, ours measured, never in one column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sapnet.errors import UserError
from sapnet.evaluation.runner import PROTOCOLS
from sapnet.evaluation.statistics import paired_interval
from sapnet.evaluation.summary import timing
from sapnet.reporting.rows import Study, read_study

#: What the SSIM of a protocol is called: figures of one do not compare with figures of another.
SSIM = {PROTOCOLS["standard"]: "ssim_matlab3d", PROTOCOLS["realblur"]: "ssim_gaussian_registered"}
_PAPER = (("psnr_db", "paper's PSNR dB", ".2f"), ("ssim", "paper's SSIM", ".3f"), ("runtime_s", "paper's s", "g"))
_MEASURED = ("measured here", "test images", "PSNR dB, 95% interval", "SSIM", "s")


@dataclass(frozen=True)
class TestSet:
    """Test images that a table is about.

    Attributes:
        name: Stands above its part of the table.
        folders: Names that its folder goes by.
        data: Overrides of `sapnet evaluate` that read it, save its place.
        paper: How the keys of the paper's figures on it begin; None where it gives none.
        only: Patterns of names; images that match none are no part of it. Empty for all.
        leave_out: Patterns of names that are no part of it.
        remark: What a reader should know.
    """

    __test__ = False  # no test of pytest's

    name: str
    folders: tuple[str, ...]
    data: tuple[str, ...]
    paper: str | None = None
    only: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    remark: str = ""

    def holds(self, image: str) -> bool:
        """Whether an image of this name is part of the set."""
        if any(fnmatchcase(image, pattern) for pattern in self.leave_out):
            return False
        return not self.only or any(fnmatchcase(image, pattern) for pattern in self.only)


@dataclass(frozen=True)
class Benchmark:
    """A study whose rows are measured on published test sets.

    Attributes:
        study: Its title, rows, notes, and the paper's figures of the rows.
        quoted: The paper's figures of methods that are not built here, by name.
        sets: What is tested on.
    """

    study: Study
    quoted: dict[str, dict[str, float]]
    sets: tuple[TestSet, ...]


def read_benchmark(path: Path) -> Benchmark:
    """Read a study that names test sets.

    Raises:
        UserError: No such study, or it names none.
    """
    study = read_study(path)
    content = yaml.safe_load(path.read_text())
    if "sets" not in content:
        raise UserError(f"table={path.stem}: it names no test sets; sapnet reproduce renders it.")
    sets = []
    for name, entry in content["sets"].items():
        lists = {key: tuple(entry.get(key, ())) for key in ("folders", "data", "only", "leave_out")}
        sets.append(TestSet(name, **lists, paper=entry.get("paper"), remark=entry.get("remark", "")))
    return Benchmark(study, content.get("quoted", {}), tuple(sets))


def figures(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a network's result lines on one set come to, each key with its unit or the metric's full name.

    The interval is the bootstrap's over images, at 95%; one image has none. Times are medians. Images that equal their
    ground truth have no finite PSNR: they are left out of the means and counted.

    Raises:
        UserError: No image is left.
    """
    finite = [line for line in lines if np.isfinite([line["input_psnr"], line["stage_psnr"][-1]]).all()]
    if not finite:
        raise UserError("every restored image equals its ground truth, or none is finite: nothing to take a mean of.")
    mean, low, high = paired_interval([line["stage_psnr"][-1] for line in finite])
    time = timing(lines)
    found = {
        "images": len(finite),
        "psnr_db": mean,
        **({"psnr_ci95_low_db": low, "psnr_ci95_high_db": high} if len(finite) > 1 else {}),
        SSIM[lines[0]["protocol"]]: float(np.mean([line["stage_ssim"][-1] for line in finite])),
        "input_psnr_db": float(np.mean([line["input_psnr"] for line in finite])),
        f"input_{SSIM[lines[0]['protocol']]}": float(np.mean([line["input_ssim"] for line in finite])),
        "runtime_s": time["seconds"],
        "device": time["of"],
        "protocol": lines[0]["protocol"],
    }
    if "seconds_unsynchronised" in time:
        found["runtime_unsynchronised_s"] = time["seconds_unsynchronised"]
    if len(finite) < len(lines):
        found["images_equal_to_truth"] = len(lines) - len(finite)
    if "unregistered" in lines[0]:
        found["images_unregistered"] = sum(any(line["unregistered"]) for line in lines)
    return found


def quoted(benchmark: Benchmark, test: TestSet) -> list[dict[str, Any]]:
    """Return a line for each method of the paper with its figures on a set, as ``paper_<quantity>_<unit>``."""
    if test.paper is None:
        return []
    lines = []
    for row, known in {**benchmark.quoted, **benchmark.study.paper}.items():
        found = {f"paper_{key}": known[test.paper + key] for key, *_ in _PAPER if test.paper + key in known}
        lines.append({"set": test.name, "row": row, "origin": "quoted", **found})
    return lines


def as_markdown(benchmark: Benchmark, lines: Sequence[Mapping[str, Any]], origin: Mapping[str, Any]) -> str:
    """Return a table for each set, where each measured figure comes from, and the notes on the paper's figures.

    Args:
        benchmark: What is rendered.
        lines: Those of `quoted`, and for each network and set one with `figures`, or a ``remark`` why there are none.
        origin: Said at the end.
    """
    text = [f"## {benchmark.study.title}", ""]
    text += ["The paper's figures are quoted from it; ours stand in columns of their own. No column mixes the two.", ""]
    for test in benchmark.sets:
        ours = [line for line in lines if line["set"] == test.name]
        text += _section(benchmark, test, ours) if ours else []
    text += ["### Notes", "", *(f"- {note}" for note in benchmark.study.notes)]
    text += [f"- {sentence}" for sentence in _ON_FIGURES]
    text += ["", *(f"{key}: {value}  " for key, value in origin.items())]
    return "\n".join(text) + "\n"


_ON_FIGURES = (
    "Intervals resample images one by one; frames of one video are alike, so on few sequences the true ones are wider.",
    "Times are medians over images until the result is there (the device synchronised), the network alone; of the"
    " paper's times it is not said how they were taken.",
)


def _section(benchmark: Benchmark, test: TestSet, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    paper = [column for column in _PAPER if any(f"paper_{column[0]}" in line for line in lines)]
    text = [f"### {test.name}", ""] + ([test.remark, ""] if test.remark else [])
    for line in lines:
        text += [line["remark"], ""] if line["row"] is None else []
    measured = [line for line in lines if line["origin"] not in ("quoted", None)]
    head = ["method", *(heading for _, heading, _ in paper), *(_MEASURED if measured else ())]
    text += [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    blank = [""] * len(paper)
    text += [_row("blurred input", blank, line) for line in _blurred(measured)]
    ours = {row: [line for line in measured if line["row"] == row] for row in dict.fromkeys(x["row"] for x in measured)}
    for line in (line for line in lines if line["origin"] == "quoted"):
        cells = [f"{line[f'paper_{key}']:{form}}" if f"paper_{key}" in line else "" for key, _, form in paper]
        if not measured:
            text.append(f"| {' | '.join([line['row'], *cells])} |")
            continue
        word = "no result" if line["row"] in benchmark.study.rows else "quoted only"
        first, *rest = ours.pop(line["row"], [{"origin": word}])
        text.append(_row(line["row"], cells, first))
        text += [_row("", blank, other) for other in rest]
    text += [_row(row, blank, line) for row, found in ours.items() for line in found]
    return [*text, "", *_provenance(measured)]


def _blurred(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    # Of the network with the most images; the others' have the same input.
    done = [line for line in measured if "psnr_db" in line]
    if not done:
        return []
    line = max(done, key=lambda line: line["images"])
    kept = {key: line[key] for key in ("images", "images_of", "protocol")}
    ssim = SSIM[line["protocol"]]
    return [{"origin": "unrestored", **kept, "psnr_db": line["input_psnr_db"], ssim: line[f"input_{ssim}"]}]


def _row(name: str, paper: Sequence[str], line: Mapping[str, Any]) -> str:
    if "psnr_db" not in line:
        return f"| {' | '.join([name, *paper, line['origin'], '', '', '', ''])} |"
    cells = [name, *paper, line["origin"]]
    psnr = f"{line['psnr_db']:.2f}"
    if "psnr_ci95_low_db" in line:
        psnr += f" [{line['psnr_ci95_low_db']:.2f}, {line['psnr_ci95_high_db']:.2f}]"
    share = f"{line['images']} of {line['images_of']}" if line["images_of"] else f"{line['images']}"
    seconds = f"{line['runtime_s']:.3f}" if "runtime_s" in line else ""
    if "runtime_unsynchronised_s" in line:
        seconds += f" ({line['runtime_unsynchronised_s']:.3f} unsynchronised)"
    ssim = f"{line[SSIM[line['protocol']]]:.4f}"
    return f"| {' | '.join([*cells, share, psnr, ssim, seconds])} |"


def _provenance(measured: Sequence[Mapping[str, Any]]) -> list[str]:
    done = [line for line in measured if "psnr_db" in line]
    protocols = dict.fromkeys(line["protocol"] for line in done)
    text = [f"Measured as: {protocol}; SSIM is `{SSIM[protocol]}`.\n" for protocol in protocols]
    for line in done:
        kind = f" ({line['checkpoint_kind']}, step {line['generator_steps']})" if "checkpoint_kind" in line else ""
        words = [f"checkpoint {line['checkpoint']}{kind}", line["device"]]
        words += [line["remark"]] if line["remark"] else []
        words += [f"`{line['command']}` at commit {line['commit']}"]
        text.append(f"- {line['row']}, {line['origin']}: {'; '.join(words)}")
    rest = [line for line in measured if line not in done]
    for origin, remark in dict.fromkeys((line["origin"], line["remark"]) for line in rest):
        rows = [line["row"] for line in rest if (line["origin"], line["remark"]) == (origin, remark)]
        text.append(f"- {', '.join(rows)}: {origin}; {remark}")
    return [*text, ""] if text else []
