"""Folders of the Hydra configs and of the studies."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

CONFIG_DIR: Path = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""Folder of the Hydra configs: inside an installed package, next to the package in a checkout."""

EXPERIMENTS: Path = CONFIG_DIR.parent / "experiments"
"""Folder of the studies, one YAML file each."""
