"""`python -m sapnet.benchmark table=1 data_root=FOLDER`: Table 1 or 2 from the networks and images that are there."""

from sapnet import interrupts

if __name__ == "__main__":
    interrupts.install()  # before the imports below, which take seconds

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from torch import nn

from sapnet.data.benchmark import BenchmarkData, total
from sapnet.data.samples import PairFiles, WholeImages
from sapnet.entry import CONFIG_DIR, entry_point, mistake
from sapnet.errors import UserError
from sapnet.evaluate import as_restore, open_checkpoint, open_published
from sapnet.evaluation.checkpoints import evaluated_checkpoint
from sapnet.evaluation.runner import evaluate_images, usual_device
from sapnet.files import exclusive, write_atomically
from sapnet.provenance import as_columns, commit, provenance, write_json
from sapnet.reporting.benchmarks import Benchmark, TestSet, as_markdown, figures, quoted, read_benchmark
from sapnet.reporting.render import as_csv
from sapnet.reporting.rows import EVALUATED, data_words, read_study

log = logging.getLogger(__name__)
EXPERIMENTS = CONFIG_DIR.parent / "experiments"
#: Scales of a study whose runs may stand beside the paper's figures.
SCALES = ("paper", "mini")
#: The model of published weights and its row in a table, by a file that no smaller one has.
PUBLISHED = {
    "encoder_s4_lv1.pkl": ("dmphn_stack4", "DMPHN"),
    "encoder_lv4.pkl": ("dmphn_1_2_4_8", "DMPHN(1-2-4-8), no row of the paper's"),
    "encoder_lv3.pkl": ("dmphn_1_2_4", "DMPHN(1-2-4), no row of the paper's"),
}


@dataclass(frozen=True)
class Candidate:
    """A network that may be evaluated.

    Attributes:
        row: The table's row, or a name of its own.
        origin: What of that row it is.
        load: Returns it, and what result lines say of it.
        trained: How it was trained and at which commit, where that is known.
    """

    row: str
    origin: str
    load: Callable[[], tuple[nn.Module, dict[str, Any]]]
    trained: str = ""


@dataclass(frozen=True)
class Images:
    """The images of a set that are there, of how many, and what result lines say of them."""

    items: WholeImages
    of: int | None
    context: dict[str, str]
    protocol: str


def trained(path: Path, runs: Path) -> Iterator[Candidate | dict[str, Any]]:
    """Yield the networks trained for a study's rows, on any data, and for a row without any a line that says so."""
    markers = sorted(runs.glob("*/done.json"))
    done = {marker.parent: json.loads(marker.read_text()) for marker in markers}
    studies = {scale: read_study(path, scale) for scale in SCALES}
    for row in studies["paper"].rows:
        found = [
            _trained(row, f"{scale} scale", folder, made)
            for scale, study in studies.items()
            for folder, made in done.items()
            if any(_same(made["overrides"], study.overrides(row, seed)) for seed in study.seeds)
        ]
        words = f"`python -m sapnet.reproduce table={path.stem}` trains it"
        yield from found or [{"row": row, "origin": "not trained", "remark": words}]


def _same(told: Sequence[str], wanted: Sequence[str]) -> bool:
    # What is tested here is the network: neither its training data nor what the study evaluated of it matters.
    one, other = (set(words) - set(data_words(words)) for words in (told, wanted))
    return {w for w in one if not w.startswith(EVALUATED)} == {w for w in other if not w.startswith(EVALUATED)}


def _trained(row: str, scale: str, folder: Path, made: Mapping[str, Any]) -> Candidate:
    choices = dict(word.split("=", 1) for word in made["overrides"] if "=" in word)
    origin = f"{scale}, trained on {choices.get('data', 'synthetic')}, seed {choices['seed']}"
    by = f"{made['command']} at commit {made['commit']}"
    return _checkpoint(row, origin, evaluated_checkpoint(folder / "checkpoints"), by)


def published(data_root: Path) -> Iterator[Candidate]:
    """Yield the networks whose authors' weights lie up to two folders below the data sets'."""
    for folder in sorted({path.parent for depth in ("*", "*/*") for path in data_root.glob(f"{depth}/encoder_*.pkl")}):
        found = next((names for file, names in PUBLISHED.items() if (folder / file).is_file()), None)
        if found is None:
            continue

        def load(model: str = found[0], folder: Path = folder) -> tuple[nn.Module, dict[str, Any]]:
            return open_published(hydra.compose("evaluate", [f"model={model}"]).model, folder, f"model={model}")

        yield Candidate(found[1], "its authors' weights", load)


def given(checkpoints: Sequence[str]) -> Iterator[Candidate]:
    """Yield checkpoints named on the command line.

    Raises:
        UserError: One is not there.
    """
    for path in map(Path, checkpoints):
        if not path.is_file():
            raise UserError(f"checkpoints: there is no file {path}.")
        yield _checkpoint(f"checkpoint {'/'.join(path.parts[-3:])}", "given", path)


def _checkpoint(row: str, origin: str, path: Path, made: str = "") -> Candidate:
    return Candidate(row, origin, lambda: open_checkpoint(path), made)


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
    pairs = [pair for pair in module.whole_images("test").source.pairs if test.holds(pair.name)]
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


def run(
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
        for network in networks if found is not None else ():
            if isinstance(network, dict):
                lines += [{"set": test.name, **network}] if test.paper is not None else []
                continue
            line = {"set": test.name, "row": network.row, "origin": network.origin}
            log.info("%s: %s, %s", test.name, network.row, network.origin)
            try:
                lines.append({**line, **evaluate(network, found, root / _slug(test.name), command)})
            except Exception as error:  # the others are still wanted
                sentence = mistake(error) or f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                lines.append({**line, "origin": f"failed: {network.origin}", "remark": sentence})
                failures.append(f"{test.name}, {network.row}: {sentence}")
                log.error(failures[-1])
    return lines, failures


def _slug(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


@entry_point("benchmark")
def main(config: DictConfig) -> None:
    """Evaluate, render, print; what is not there is said in the table, what failed ends with exit code 1."""
    name = f"table{config.table}" if str(config.table).isdigit() else str(config.table)
    path = EXPERIMENTS / f"{name}.yaml"
    benchmark = read_benchmark(path)
    networks = [*trained(path, Path(config.runs)), *given(config.checkpoints)]
    data_root = None if config.data_root is None else Path(config.data_root)
    networks += [] if data_root is None else published(data_root)
    command = f"python -m sapnet.benchmark table={config.table} data_root={config.data_root}"
    command += f" checkpoints=[{','.join(config.checkpoints)}]" if config.checkpoints else ""
    lines, failures = run(benchmark, data_root, Path(config.root), networks, command)
    origin = {"Rendered with": f"`{command}`", "Commit": commit()}
    table = as_markdown(benchmark, lines, origin)
    folder = Path(config.root) / name
    with exclusive(folder / ".lock"):
        write_atomically(folder / "table.md", table.encode())
        write_atomically(folder / "table.csv", as_csv(lines).encode())
        write_json(folder / "table.json", {"lines": lines, "origin": origin})
    print(table)
    if failures:
        raise UserError(f"{len(failures)} evaluations failed; the first: {failures[0]}")


if __name__ == "__main__":
    main()
