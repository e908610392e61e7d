"""Error messages for overrides that Hydra cannot compose a config from."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from sapnet.error_messages import user_error_message

#: Keys of earlier versions.
RENAMED = {"checkpoint": "ckpt_path", "model": "network"}
#: Keys of earlier versions that are now keys of one logger, which only exist if it is chosen.
MOVED = {f"logger.{key}": f"logger.wandb.{key}" for key in ("entity", "offline", "project")}


def override_error_message(error: CompactHydraException, config_dir: Path, config_name: str) -> str:
    """Return one sentence that names the override and, if known, the allowed values."""
    if isinstance(error, MissingConfigException) and str(error.missing_cfg_file).startswith("hydra/sweeper/"):
        return "hydra/sweeper: this sweeper is an extra; install it with pip install 'sapnet[sweep]'."
    base = re.match(r"In '([^'/]+)/([^']+)': Could not load", str(error))
    if base:
        return f"{base[1]}={base[2]}: other options are built on it; choose one of those that --help lists."
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        # Hydra does not know them for an option of a list, such as `logger=[csv,wandb]`.
        if options := error.options or sorted(path.stem for path in (config_dir / group).glob("*.yaml") if group):
            return f"{group}={option}: there is no such option; {group} can be {', '.join(options)}."
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not a valid override; write KEY=VALUE, and in quotes what holds brackets or spaces."
    unknown = re.match(r"Could not override '([^']+)'", str(error))
    if unknown and unknown[1] in MOVED:
        return f"{unknown[1]}: there is no such key; with logger=wandb it is {MOVED[unknown[1]]}."
    if unknown:
        known = _known_keys(config_dir, config_name)
        group, dot, rest = unknown[1].partition(".")
        renamed = f"{RENAMED[group]}{dot}{rest}" if group in RENAMED else None
        similar = [renamed] if renamed in known else difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean {similar[0]}? " if similar else ""
        return f"{unknown[1]}: there is no such key; {hint}--help lists them all."
    return user_error_message(error) or str(error)


def _known_keys(config_dir: Path, config_name: str) -> list[str]:
    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else ():
            if not str(key).startswith("_"):
                yield f"{prefix}{key}"
            yield from walk(value, f"{prefix}{key}.")

    try:
        with hydra.initialize_config_dir(str(config_dir), version_base="1.3"):
            return list(walk(OmegaConf.to_container(hydra.compose(config_name)), ""))
    except Exception:  # only the hint is lost
        return []
