"""Networks that Tables 1 and 2 may be measured with: trained here, published by their authors, or given by the user."""

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
from sapnet.reporting.rows import EVALUATED, data_words, read_study

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
            if any(_same_network(made["overrides"], study.overrides(row, seed)) for seed in study.seeds)
        ]
        words = f"`python -m sapnet reproduce table={path.stem}` trains it"
        yield from found or [{"row": row, "origin": "not trained", "remark": words}]


def _same_network(overrides: Sequence[str], others: Sequence[str]) -> bool:
    return _of_network(overrides) == _of_network(others)


def _of_network(overrides: Sequence[str]) -> set[str]:
    # Neither the training data nor the checkpoint that the study evaluates distinguishes two networks here.
    return {word for word in set(overrides) - set(data_words(overrides)) if not word.startswith(EVALUATED)}


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
            return open_published(hydra.compose("evaluate", [f"network={model}"]).network, folder, f"network={model}")

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
