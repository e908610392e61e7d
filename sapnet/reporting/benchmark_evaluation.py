"""Evaluation of networks on published test sets, for Tables 1 and 2."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import hydra

from sapnet.data.published import PublishedData, total_pairs
from sapnet.data.samples import PairFiles, WholeImages
from sapnet.error_messages import user_error_message
from sapnet.errors import UserError
from sapnet.evaluation.networks import as_restore
from sapnet.evaluation.runner import evaluate_images, usual_device
from sapnet.files import exclusive, write_atomically
from sapnet.provenance import as_columns, commit, provenance, write_json
from sapnet.reporting.benchmark_tables import BenchmarkStudy, TestSet, as_markdown, quoted_lines, summarise
from sapnet.reporting.candidates import Candidate
from sapnet.reporting.study_tables import as_csv

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestImages:
    """Available images of a test set.

    Attributes:
        items: The images.
        total: Number of images of the complete set; None for a subset.
        context: Identification of the data for the result lines.
        protocol: Evaluation protocol.
    """

    # pytest would collect a class of this name.
    __test__ = False

    items: WholeImages
    total: int | None
    context: dict[str, str]
    protocol: str


class MissingData(UserError):
    """Data that is not available locally."""


def find_images(test: TestSet, data_root: Path | None) -> TestImages | None:
    """Find the images of a test set.

    Args:
        test: The test set.
        data_root: Folder of the data sets.

    Returns:
        The images, or None if the set is a subset of another one and none of its images is available.

    Raises:
        MissingData: The folder of the set does not exist, or contains none of its images.
        UserError: The images cannot be used.
    """
    names = " or ".join(test.folders)
    if data_root is None:
        raise MissingData(f"no data: set data_root=FOLDER to the folder that contains {names}.")
    folder = next((data_root / name for name in test.folders if (data_root / name).is_dir()), None)
    if folder is None:
        raise MissingData(f"not available: {data_root} contains no folder {names}.")
    config = hydra.compose("evaluate", list(test.data)).data
    config.root = str(folder)
    module: PublishedData = hydra.utils.instantiate(config)
    for part in module.image_folders("test"):
        if not part.is_dir():
            raise MissingData(f"not available: {folder} contains no folder {part.relative_to(folder)}.")
    module.setup("test")
    source = cast(PairFiles, module.whole_images("test").source)
    pairs = [pair for pair in source.pairs if test.contains(pair.name)]
    if not pairs:
        if test.only:
            return None
        raise MissingData(f"not available: {folder} contains none of its test images.")
    # The number of available images may change between runs and does not identify a result line.
    remarks = {key: value for key, value in module.remarks.items() if key != "partial"}
    total = None if test.only else total_pairs(module.expected("test"))
    context = {"data": module.name, "set": test.name, "split": "test", **remarks}
    return TestImages(WholeImages(PairFiles(pairs)), total, context, module.protocol)


def evaluate(candidate: Candidate, images: TestImages, folder: Path, command: str) -> dict[str, Any]:
    """Evaluate a network on a test set, and return its line of the table.

    Images that have results are not evaluated again.

    Args:
        candidate: The network.
        images: The test images.
        folder: Parent of the folder with the results of the network.
        command: Command, saved with new results.

    Raises:
        UserError: The network or an image cannot be used.
    """
    network, metadata = candidate.load()
    device = usual_device()
    identity = metadata.get("checkpoint") or metadata["published_weights"]
    folder = folder / identity
    if not (folder / "origin.json").is_file():
        _record_commit(folder / "origin.json", command)
    record = partial(_record_commit, folder / "origin.json", command)
    context = {**metadata, **images.context}
    path, restore = folder / "results.jsonl", as_restore(network.to(device))
    lines = evaluate_images(restore, images.items, device, path, context, record, images.protocol)
    origin = json.loads((folder / "origin.json").read_text())
    line = {**summarise(lines), "images_of": images.total, "checkpoint": identity}
    origin["commit"] = ", ".join(origin["commits"])
    line |= {key: metadata[key] for key in ("checkpoint_kind", "generator_steps") if key in metadata}
    line |= as_columns(origin)
    remarks = {
        f"trained by {candidate.trained}": candidate.trained,
        "chosen on test images": metadata.get("validated_on") == "test",
        f"{line.get('images_unregistered')} images could not be registered": line.get("images_unregistered"),
        f"{line.get('images_equal_to_truth')} images equal their truth": line.get("images_equal_to_truth"),
    }
    return {**line, "remark": "; ".join(remark for remark, applies in remarks.items() if applies)}


def _record_commit(path: Path, command: str, *_: Any) -> None:
    """Add the current commit to those that the results of a folder were made with; called for each image."""
    with exclusive(path.with_name(".origin.lock")):
        origin = json.loads(path.read_text()) if path.is_file() else {**provenance(), "command": command, "commits": []}
        if (current := commit()) not in origin["commits"]:
            write_atomically(path, json.dumps(origin | {"commits": [*origin["commits"], current]}).encode())


def evaluate_all(
    benchmark: BenchmarkStudy,
    data_root: Path | None,
    root: Path,
    networks: Sequence[Candidate | dict[str, Any]],
    command: str,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Evaluate all networks on all test sets.

    Args:
        benchmark: The study.
        data_root: Folder of the data sets.
        root: Output folder.
        networks: Networks, and lines of the table for rows without one.
        command: Command, saved with new results.

    Returns:
        The lines of the tables, including quoted ones, and a message for each evaluation that failed.
    """
    lines, failures = [], []
    for test in benchmark.sets:
        lines += quoted_lines(benchmark, test)
        try:
            images = find_images(test, data_root)
        except UserError as error:
            # A subset of another set lacks the same data; it is reported once.
            if test.paper is not None:
                lines.append({"set": test.name, "row": None, "origin": None, "remark": str(error)})
                failures += [] if isinstance(error, MissingData) else [f"{test.name}: {error}"]
            continue
        if images is None:
            continue
        for network in networks:
            if isinstance(network, dict):
                lines += [{"set": test.name, **network}] if test.paper is not None else []
                continue
            line = {"set": test.name, "row": network.row, "origin": network.origin}
            log.info("%s: %s, %s", test.name, network.row, network.origin)
            try:
                lines.append({**line, **evaluate(network, images, root / _slug(test.name), command)})
            except Exception as error:  # the other networks are still evaluated
                reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                message = user_error_message(error) or reason
                lines.append({**line, "origin": f"failed: {network.origin}", "remark": message})
                failures.append(f"{test.name}, {network.row}: {message}")
                log.error(failures[-1])
    return lines, failures


def _slug(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def write_tables(benchmark: BenchmarkStudy, lines: Sequence[Mapping[str, Any]], folder: Path, command: str) -> str:
    """Write `table.md`, `table.csv` and `table.json` of the lines of `evaluate_all`, and return the Markdown."""
    origin = {"Rendered with": f"`{command}`", "Commit": commit()}
    table = as_markdown(benchmark, lines, origin)
    with exclusive(folder / ".lock"):
        write_atomically(folder / "table.md", table.encode())
        write_atomically(folder / "table.csv", as_csv(lines).encode())
        write_json(folder / "table.json", {"lines": lines, "origin": origin})
    return table
