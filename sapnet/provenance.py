"""Provenance of results: command, commit, configuration hash and versions."""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from sapnet import __version__
from sapnet.files import write_atomically

#: Keys of the provenance in every results file; columns in tables.
KEYS = ("command", "commit", "config_hash", "versions")
#: Value of a key that an earlier version did not record.
NOT_RECORDED = "not recorded"


def provenance(config: bytes | str | None = None) -> dict[str, Any]:
    """Return command, commit, configuration hash and versions of this process.

    Args:
        config: Configuration to hash. The default is the composed configuration that Hydra saved in the run folder;
            without Hydra it is the command line.
    """
    command_line = command()
    if config is None:
        config = _composed_config() or command_line
    return {"command": command_line, "commit": commit(), "config_hash": config_hash(config), "versions": versions()}


def command() -> str:
    """Return the command line of this process; in a job of a sweep, that of the single job."""
    if HydraConfig.initialized():
        job = HydraConfig.get()
        name = job.job.name.replace("_", "-")
        return shlex.join(["python", "-m", "sapnet", name, *job.overrides.task])
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["python", "-m", spec.name.removesuffix(".__main__")] if spec else [Path(sys.argv[0]).name]
    return shlex.join([*program, *sys.argv[1:]])


@cache
def commit() -> str:
    """Return the commit of the code, with a suffix for uncommitted changes; without a repository, the version."""
    git_command = ["git", "-C", str(Path(__file__).parents[1]), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git_command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"sapnet {__version__}"


def config_hash(config: bytes | str) -> str:
    """Return the first 12 hexadecimal digits of a configuration's SHA-256."""
    return hashlib.sha256(config.encode() if isinstance(config, str) else config).hexdigest()[:12]


def versions() -> dict[str, str]:
    """Return the versions of Python, PyTorch and sapnet."""
    return {"python": platform.python_version(), "torch": torch.__version__, "sapnet": __version__}


def write_json(path: str | Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write results as JSON, atomically; add `provenance` if it is missing. Return the content.

    Raises:
        OSError: The file cannot be written.
    """
    content = {**content, "provenance": content.get("provenance") or provenance()}
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
    return content


def as_columns(origin: Mapping[str, Any]) -> dict[str, str]:
    """Return a provenance as table cells, with all versions in one cell and `NOT_RECORDED` for missing keys."""
    cells = {key: origin.get(key, NOT_RECORDED) for key in KEYS}
    if isinstance(cells["versions"], Mapping):
        cells["versions"] = ", ".join(f"{name} {version}" for name, version in cells["versions"].items())
    return cells


def _composed_config() -> bytes | None:
    if not HydraConfig.initialized() or OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):
        return None
    path = Path(HydraConfig.get().runtime.output_dir) / ".hydra" / "config.yaml"
    return path.read_bytes() if path.is_file() else None
