"""Evaluate networks on the whole images of published test sets, for Tables 1 and 2."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import hydra

from sapnet.data.benchmark import BenchmarkData, total
from sapnet.data.samples import PairFiles, WholeImages
from sapnet.error_messages import user_error_message
from sapnet.errors import UserError
from sapnet.evaluation.networks import as_restore
from sapnet.evaluation.runner import evaluate_images, usual_device
from sapnet.files import exclusive, write_atomically
from sapnet.provenance import as_columns, commit, provenance, write_json
from sapnet.reporting.benchmarks import Benchmark, TestSet, as_markdown, figures, quoted
from sapnet.reporting.candidates import Candidate
from sapnet.reporting.render import as_csv

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Images:
    """The images of a set that are there, of how many, and what result lines say of them."""

    items: WholeImages
    of: int | None
    context: dict[str, str]
    protocol: str


class Absent(UserError):
    """What is not there; no fault of anybody's."""


def images(test: TestSet, data_root: Path | None) -> Images | None:
    """Find the images of a set; None where it is a choice of another's images and none of them is there.

    Raises:
        Absent: There is no folder of it, or none of its images.
        UserError: They cannot be used.
    """
    named = " or ".join(test.folders)
    if data_root is None:
        raise Absent(f"no data: data_root=FOLDER names the folder that holds {named}.")
    folder = next((data_root / name for name in test.folders if (data_root / name).is_dir()), None)
    if folder is None:
        raise Absent(f"not there: {data_root} holds no folder {named}.")
    config = hydra.compose("evaluate", list(test.data)).data
    config.root = str(folder)
    module: BenchmarkData = hydra.utils.instantiate(config)
    for part in module.image_folders("test"):
        if not part.is_dir():
            raise Absent(f"not there: {folder} holds no folder {part.relative_to(folder)}.")
    module.setup("test")
    source = cast(PairFiles, module.whole_images("test").source)
    pairs = [pair for pair in source.pairs if test.holds(pair.name)]
    if not pairs:
        if test.only:
            return None
        raise Absent(f"not there: {folder} holds none of its test images.")
    # How many there are may change from one run to the next, and is no part of what makes a line ours.
    remarks = {key: value for key, value in module.remarks.items() if key != "partial"}
    of = None if test.only else total(module.expected("test"))
    context = {"data": module.name, "set": test.name, "split": "test", **remarks}
    return Images(WholeImages(PairFiles(pairs)), of, context, module.protocol)


def evaluate(candidate: Candidate, found: Images, folder: Path, command: str) -> dict[str, Any]:
    """Evaluate a network on a set, or read what is done below ``folder``; return its line of the table.

    Raises:
        UserError: Either cannot be used.
    """
    network, origin = candidate.load()
    device = usual_device()
    identity = origin.get("checkpoint") or origin["published_weights"]
    folder = folder / identity
    if not (folder / "origin.json").is_file():
        _note(folder / "origin.json", command)
    fresh = partial(_note, folder / "origin.json", command)
    context = {**origin, **found.context}
    path = folder / "results.jsonl"
    lines = evaluate_images(as_restore(network.to(device)), found.items, device, path, context, fresh, found.protocol)
    made = json.loads((folder / "origin.json").read_text())
    done = {**figures(lines), "images_of": found.of, "checkpoint": identity}
    made["commit"] = ", ".join(made["commits"])
    done |= {key: origin[key] for key in ("checkpoint_kind", "generator_steps") if key in origin}
    done |= as_columns(made)
    remarks = {
        f"trained by {candidate.trained}": candidate.trained,
        "chosen on test images": origin.get("validated_on") == "test",
        f"{done.get('images_unregistered')} images could not be registered": done.get("images_unregistered"),
        f"{done.get('images_equal_to_truth')} images equal their truth": done.get("images_equal_to_truth"),
    }
    return {**done, "remark": "; ".join(words for words, said in remarks.items() if said)}


def _note(path: Path, command: str, *_: Any) -> None:
    # Which commits the results of a folder were made at; called for each image, most often for nothing.
    with exclusive(path.with_name(".origin.lock")):
        made = json.loads(path.read_text()) if path.is_file() else {**provenance(), "command": command, "commits": []}
        if (now := commit()) not in made["commits"]:
            write_atomically(path, json.dumps(made | {"commits": [*made["commits"], now]}).encode())


def evaluate_all(
    benchmark: Benchmark,
    data_root: Path | None,
    root: Path,
    networks: Sequence[Candidate | dict[str, Any]],
    command: str,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Evaluate all networks on all sets; return the lines of the tables, quoted ones too, and what failed.

    ``command`` is kept with each new result.
    """
    lines, failures = [], []
    for test in benchmark.sets:
        lines += quoted(benchmark, test)
        try:
            found = images(test, data_root)
        except UserError as error:
            if test.paper is not None:  # a choice of another set's images lacks what that lacks
                lines.append({"set": test.name, "row": None, "origin": None, "remark": str(error)})
                failures += [] if isinstance(error, Absent) else [f"{test.name}: {error}"]
            continue
        if found is None:
            continue
        for network in networks:
            if isinstance(network, dict):
                lines += [{"set": test.name, **network}] if test.paper is not None else []
                continue
            line = {"set": test.name, "row": network.row, "origin": network.origin}
            log.info("%s: %s, %s", test.name, network.row, network.origin)
            try:
                lines.append({**line, **evaluate(network, found, root / _slug(test.name), command)})
            except Exception as error:  # the others are still wanted
                reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                sentence = user_error_message(error) or reason
                lines.append({**line, "origin": f"failed: {network.origin}", "remark": sentence})
                failures.append(f"{test.name}, {network.row}: {sentence}")
                log.error(failures[-1])
    return lines, failures


def _slug(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def write_tables(benchmark: Benchmark, lines: Sequence[Mapping[str, Any]], folder: Path, command: str) -> str:
    """Write ``table.md``, ``table.csv`` and ``table.json`` of `evaluate_all`'s lines, and return the Markdown."""
    origin = {"Rendered with": f"`{command}`", "Commit": commit()}
    table = as_markdown(benchmark, lines, origin)
    with exclusive(folder / ".lock"):
        write_atomically(folder / "table.md", table.encode())
        write_atomically(folder / "table.csv", as_csv(lines).encode())
        write_json(folder / "table.json", {"lines": lines, "origin": origin})
    return table
