"""Networks for Tables 1 and 2: trained here, published by their authors, or selected by the user."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from torch import nn

from sapnet.errors import UserError
from sapnet.evaluation.checkpoints import evaluated_checkpoint
from sapnet.evaluation.networks import open_checkpoint, open_published
from sapnet.reporting.study import EVALUATED, data_overrides, read_study

#: Scales of a study whose runs are compared with the paper.
SCALES = ("paper", "mini")
#: Model and table row of published weights, by a file that is missing in the smaller models.
PUBLISHED = {
    "encoder_s4_lv1.pkl": ("dmphn_stack4", "DMPHN"),
    "encoder_lv4.pkl": ("dmphn_1_2_4_8", "DMPHN(1-2-4-8), no row of the paper's"),
    "encoder_lv3.pkl": ("dmphn_1_2_4", "DMPHN(1-2-4), no row of the paper's"),
}


@dataclass(frozen=True)
class Candidate:
    """A network that can be evaluated.

    Attributes:
        row: Row of the table, or a name of its own.
        origin: Origin of the network, which distinguishes candidates of one row.
        load: Returns the network and its metadata for the result lines.
        trained: Training command and commit, if known.
    """

    row: str
    origin: str
    load: Callable[[], tuple[nn.Module, dict[str, Any]]]
    trained: str = ""


def trained_networks(path: Path, runs: Path) -> Iterator[Candidate | dict[str, Any]]:
    """Yield the finished runs of the rows of a study, on any training data.

    For a row without runs, yield a line of the table that says so.

    Args:
        path: YAML file of the study.
        runs: Folder of the runs.
    """
    markers = sorted(runs.glob("*/done.json"))
    done = {marker.parent: json.loads(marker.read_text()) for marker in markers}
    studies = {scale: read_study(path, scale) for scale in SCALES}
    for row in studies["paper"].rows:
        candidates = [
            _trained_network(row, f"{scale} scale", folder, origin)
            for scale, study in studies.items()
            for folder, origin in done.items()
            if any(_network(origin["overrides"]) == _network(study.overrides(row, seed)) for seed in study.seeds)
        ]
        remark = f"`python -m sapnet reproduce table={path.stem}` trains it"
        yield from candidates or [{"row": row, "origin": "not trained", "remark": remark}]


def _network(overrides: Sequence[str]) -> set[str]:
    # The training data and the kind of evaluated checkpoint do not change the network.
    return {each for each in set(overrides) - set(data_overrides(overrides)) if not each.startswith(EVALUATED)}


def _trained_network(row: str, scale: str, folder: Path, origin: Mapping[str, Any]) -> Candidate:
    choices = dict(each.split("=", 1) for each in origin["overrides"] if "=" in each)
    name = f"{scale}, trained on {choices.get('data', 'synthetic')}, seed {choices['seed']}"
    trained = f"{origin['command']} at commit {origin['commit']}"
    return _checkpoint(row, name, evaluated_checkpoint(folder / "checkpoints"), trained)


def published_networks(data_root: Path) -> Iterator[Candidate]:
    """Yield the networks whose published weights are up to two levels below the folder of the data sets."""
    for folder in sorted({path.parent for depth in ("*", "*/*") for path in data_root.glob(f"{depth}/encoder_*.pkl")}):
        match = next((names for file, names in PUBLISHED.items() if (folder / file).is_file()), None)
        if match is None:
            continue

        def load(model: str = match[0], folder: Path = folder) -> tuple[nn.Module, dict[str, Any]]:
            return open_published(hydra.compose("evaluate", [f"network={model}"]).network, folder, f"network={model}")

        yield Candidate(match[1], "its authors' weights", load)


def selected_checkpoints(checkpoints: Sequence[str]) -> Iterator[Candidate]:
    """Yield the checkpoints selected on the command line.

    Raises:
        UserError: A file does not exist.
    """
    for path in map(Path, checkpoints):
        if not path.is_file():
            raise UserError(f"checkpoints: there is no file {path}.")
        yield _checkpoint(f"checkpoint {'/'.join(path.parts[-3:])}", "given", path)


def _checkpoint(row: str, origin: str, path: Path, trained: str = "") -> Candidate:
    return Candidate(row, origin, lambda: open_checkpoint(path), trained)
