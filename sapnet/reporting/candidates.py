"""Networks for Tables 1 and 2: trained here, published by their authors, or selected by the user."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sapnet.errors import UserError
from sapnet.evaluation.checkpoints import evaluated_checkpoint
from sapnet.evaluation.networks import open_checkpoint, open_published, published_config
from sapnet.reporting.study import EVALUATED, data_overrides, read_study

#: Scales of a study whose runs are compared with the paper.
SCALES = ("paper", "mini")
#: Rows of the tables by published network.
ROWS = {
    "dmphn_stack4": "DMPHN",
    "dmphn_1_2_4_8": "DMPHN(1-2-4-8), no row of the paper's",
    "dmphn_1_2_4": "DMPHN(1-2-4), no row of the paper's",
    "mimo_unet": "MIMO-UNet, no row of the paper's",
    "mimo_unet_plus": "MIMO+",
    "mprnet": "MPRNet",
    "restormer": "Restormer",
    "uformer_b": "Uformer",
    # The tables have the figures of another version, for Torch 7.
    "mscnn": "MSCNN (PyTorch version), no row of the paper's",
    "deblurgan": "DG",
    "deblurgan_v2_mobilenet": "DGv2 (MobileNet), no row of the paper's",
    "deblurgan_v2_inception": "DGv2",
    "svrn": "SVRN",
    "dpn": "DPN",
}
#: Published networks by the name of their authors' file; DMPHN's by a file that is missing in the smaller models.
PUBLISHED = {
    "encoder_s4_lv1.pkl": "dmphn_stack4",
    "encoder_lv4.pkl": "dmphn_1_2_4_8",
    "encoder_lv3.pkl": "dmphn_1_2_4",
    "MIMO-UNet.pkl": "mimo_unet",
    "MIMO-UNetPlus.pkl": "mimo_unet_plus",
    "model_deblurring.pth": "mprnet",
    "motion_deblurring.pth": "restormer",
    "Uformer_B.pth": "uformer_b",
    "model-1000.pt": "mscnn",
    "latest_net_G.pth": "deblurgan",
    "fpn_mobilenet.h5": "deblurgan_v2_mobilenet",
    "fpn_inception.h5": "deblurgan_v2_inception",
    "LRNN_iter_200000.caffemodel": "svrn",
    "deblur_model.index": "dpn",
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
    found: dict[Path, str] = {}
    for file, network in PUBLISHED.items():
        for path in sorted(path for depth in ("*", "*/*") for path in data_root.glob(f"{depth}/{file}")):
            # The first match of a folder of DMPHN is the largest of its networks.
            found.setdefault(path.parent if network.startswith("dmphn") else path, network)
    yield from (published_network(network, path) for path, network in sorted(found.items()))


def published_network(network: str, weights: Path) -> Candidate:
    """Return a published network with the weights of a file or folder.

    Args:
        network: Name in `conf/network`.
        weights: File or folder of its authors.
    """

    def load() -> tuple[nn.Module, dict[str, Any]]:
        return open_published(published_config(network), weights, f"network={network}")

    return Candidate(ROWS.get(network, f"{network}, no row of the paper's"), "its authors' weights", load)


def given_weights(weights: Mapping[str, str] | None) -> Iterator[Candidate]:
    """Yield the published networks whose weights are given on the command line, by network.

    Raises:
        UserError: A network or a file does not exist.
    """
    for network, path in (weights or {}).items():
        published_config(network)
        if not Path(path).exists():
            raise UserError(f"weights.{network}: there is no file {path}.")
        yield published_network(network, Path(path))


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
