"""Tables 1 and 2: results on published test sets next to the paper's values, which have columns of their own."""

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
from sapnet.markdown import markdown_table
from sapnet.reporting.study import Study, read_study

#: Key of the SSIM by protocol: the values of different protocols are not comparable.
SSIM = {PROTOCOLS["standard"]: "ssim_matlab3d", PROTOCOLS["realblur"]: "ssim_gaussian_registered"}
_PAPER = (("psnr_db", "paper's PSNR dB", ".2f"), ("ssim", "paper's SSIM", ".3f"), ("runtime_s", "paper's s", "g"))
_MEASURED = ("measured here", "test images", "PSNR dB, 95% interval", "SSIM", "s")
_REMARKS = (
    "Intervals resample single images; frames of one video are similar, so on few sequences the true ones are wider.",
    "Times are medians over images until the device is synchronised, for the network alone; the paper does not say how"
    " its times were measured.",
)


@dataclass(frozen=True)
class TestSet:
    """Test images of a table.

    Attributes:
        name: Title of its section.
        folders: Possible names of its folder.
        data: Overrides of `sapnet evaluate` that read it, without its location.
        paper: Prefix of the keys of the paper's values; None if the paper has none.
        only: Patterns of image names that belong to the set. Empty for all.
        leave_out: Patterns of image names that do not belong to the set.
        remark: Note below the title.
    """

    # pytest would collect a class of this name.
    __test__ = False

    name: str
    folders: tuple[str, ...]
    data: tuple[str, ...]
    paper: str | None = None
    only: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    remark: str = ""

    def contains(self, image: str) -> bool:
        """Return whether an image of this name belongs to the set."""
        if any(fnmatchcase(image, pattern) for pattern in self.leave_out):
            return False
        return not self.only or any(fnmatchcase(image, pattern) for pattern in self.only)


@dataclass(frozen=True)
class BenchmarkStudy:
    """A study that is evaluated on published test sets.

    Attributes:
        study: Title, rows, notes, and the paper's values of the rows.
        quoted: The paper's values of methods that are not trained here, by name.
        sets: The test sets.
    """

    study: Study
    quoted: dict[str, dict[str, float]]
    sets: tuple[TestSet, ...]


def read_benchmark(path: Path) -> BenchmarkStudy:
    """Read a study with test sets.

    Raises:
        UserError: The study does not exist or has no test sets.
    """
    study = read_study(path)
    content = yaml.safe_load(path.read_text())
    if "sets" not in content:
        raise UserError(f"table={path.stem}: it has no test sets; use sapnet reproduce.")
    sets = []
    for name, entry in content["sets"].items():
        lists = {key: tuple(entry.get(key, ())) for key in ("folders", "data", "only", "leave_out")}
        sets.append(TestSet(name, **lists, paper=entry.get("paper"), remark=entry.get("remark", "")))
    return BenchmarkStudy(study, content.get("quoted", {}), tuple(sets))


def summarise(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the result lines of a network on a test set.

    Keys end in their unit or contain the full name of the metric. The 95% interval is a bootstrap over images; a single
    image has none. Times are medians. Images that equal their ground truth have no finite PSNR; they are counted and
    excluded from the means.

    Raises:
        UserError: No image has a finite PSNR.
    """
    finite = [line for line in lines if np.isfinite([line["input_psnr"], line["stage_psnr"][-1]]).all()]
    if not finite:
        raise UserError("no restored image has a finite PSNR, so there is no mean.")
    mean, low, high = paired_interval([line["stage_psnr"][-1] for line in finite])
    time, protocol = timing(lines), lines[0]["protocol"]
    summary = {
        "images": len(finite),
        "psnr_db": mean,
        **({"psnr_ci95_low_db": low, "psnr_ci95_high_db": high} if len(finite) > 1 else {}),
        SSIM[protocol]: float(np.mean([line["stage_ssim"][-1] for line in finite])),
        "input_psnr_db": float(np.mean([line["input_psnr"] for line in finite])),
        f"input_{SSIM[protocol]}": float(np.mean([line["input_ssim"] for line in finite])),
        "runtime_s": time["seconds"],
        "device": time["of"],
        "protocol": protocol,
    }
    if "seconds_unsynchronised" in time:
        summary["runtime_unsynchronised_s"] = time["seconds_unsynchronised"]
    if len(finite) < len(lines):
        summary["images_equal_to_truth"] = len(lines) - len(finite)
    if "unregistered" in lines[0]:
        summary["images_unregistered"] = sum(any(line["unregistered"]) for line in lines)
    return summary


def quoted_lines(benchmark: BenchmarkStudy, test: TestSet) -> list[dict[str, Any]]:
    """Return a line per method of the paper with its values on a test set as `paper_<quantity>_<unit>`."""
    if test.paper is None:
        return []
    lines = []
    for row, values in {**benchmark.quoted, **benchmark.study.paper}.items():
        quoted = {f"paper_{key}": values[test.paper + key] for key, *_ in _PAPER if test.paper + key in values}
        lines.append({"set": test.name, "row": row, "origin": "quoted", **quoted})
    return lines


def as_markdown(benchmark: BenchmarkStudy, lines: Sequence[Mapping[str, Any]], origin: Mapping[str, Any]) -> str:
    """Return a table per test set, the origin of each measured value, and the notes on the paper's values.

    Args:
        benchmark: The study.
        lines: Lines of `quoted_lines`, and for each network and test set a line of `summarise`, or a line with the
            reason in `remark` if there are no results.
        origin: Text by keyword, printed at the end.
    """
    text = [f"## {benchmark.study.title}", ""]
    text += ["The paper's values are quoted. Measured values have columns of their own.", ""]
    for test in benchmark.sets:
        own = [line for line in lines if line["set"] == test.name]
        text += _section(benchmark, test, own) if own else []
    text += ["### Notes", "", *(f"- {note}" for note in (*benchmark.study.notes, *_REMARKS))]
    text += ["", *(f"{key}: {value}  " for key, value in origin.items())]
    return "\n".join(text) + "\n"


def _section(benchmark: BenchmarkStudy, test: TestSet, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    paper = [column for column in _PAPER if any(f"paper_{column[0]}" in line for line in lines)]
    text = [f"### {test.name}", ""] + ([test.remark, ""] if test.remark else [])
    for line in lines:
        text += [line["remark"], ""] if line["row"] is None else []
    measured = [line for line in lines if line["origin"] not in ("quoted", None)]
    head = ["method", *(heading for _, heading, _ in paper), *(_MEASURED if measured else ())]
    blank = [""] * len(paper)
    rows = [_cells("blurred input", blank, line) for line in _blurred(measured)]
    by_row = {x["row"]: [line for line in measured if line["row"] == x["row"]] for x in measured}
    for line in (line for line in lines if line["origin"] == "quoted"):
        cells = [f"{line[f'paper_{key}']:{form}}" if f"paper_{key}" in line else "" for key, _, form in paper]
        if not measured:
            rows.append([line["row"], *cells])
            continue
        missing = "no result" if line["row"] in benchmark.study.rows else "quoted only"
        first, *others = by_row.pop(line["row"], [{"origin": missing}])
        rows.append(_cells(line["row"], cells, first))
        rows += [_cells("", blank, other) for other in others]
    rows += [_cells(row, blank, line) for row, results in by_row.items() for line in results]
    return [*text, markdown_table(head, rows), "", *_provenance(measured)]


def _blurred(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for the unrestored images, from the network with the most images."""
    done = [line for line in measured if "psnr_db" in line]
    if not done:
        return []
    line = max(done, key=lambda line: line["images"])
    shared = {key: line[key] for key in ("images", "images_of", "protocol")}
    ssim = SSIM[line["protocol"]]
    return [{"origin": "unrestored", **shared, "psnr_db": line["input_psnr_db"], ssim: line[f"input_{ssim}"]}]


def _cells(name: str, paper: Sequence[str], line: Mapping[str, Any]) -> list[str]:
    if "psnr_db" not in line:
        return [name, *paper, line["origin"], "", "", "", ""]
    psnr = f"{line['psnr_db']:.2f}"
    if "psnr_ci95_low_db" in line:
        psnr += f" [{line['psnr_ci95_low_db']:.2f}, {line['psnr_ci95_high_db']:.2f}]"
    images = f"{line['images']} of {line['images_of']}" if line["images_of"] else f"{line['images']}"
    seconds = f"{line['runtime_s']:.3f}" if "runtime_s" in line else ""
    if "runtime_unsynchronised_s" in line:
        seconds += f" ({line['runtime_unsynchronised_s']:.3f} unsynchronised)"
    return [name, *paper, line["origin"], images, psnr, f"{line[SSIM[line['protocol']]]:.4f}", seconds]


def _provenance(measured: Sequence[Mapping[str, Any]]) -> list[str]:
    done = [line for line in measured if "psnr_db" in line]
    protocols = dict.fromkeys(line["protocol"] for line in done)
    text = [f"Measured as: {protocol}; SSIM is `{SSIM[protocol]}`.\n" for protocol in protocols]
    for line in done:
        kind = f" ({line['checkpoint_kind']}, step {line['generator_steps']})" if "checkpoint_kind" in line else ""
        parts = [f"checkpoint {line['checkpoint']}{kind}", line["device"]]
        parts += [line["remark"]] if line["remark"] else []
        parts += [f"`{line['command']}` at commit {line['commit']}"]
        text.append(f"- {line['row']}, {line['origin']}: {'; '.join(parts)}")
    missing = [line for line in measured if line not in done]
    for origin, remark in dict.fromkeys((line["origin"], line["remark"]) for line in missing):
        rows = [line["row"] for line in missing if (line["origin"], line["remark"]) == (origin, remark)]
        text.append(f"- {', '.join(rows)}: {origin}; {remark}")
    return [*text, ""] if text else []
