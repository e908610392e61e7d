"""Folders of the Hydra configs and of the studies."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

CONFIG_DIR: Path = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The folder of the Hydra configs: inside the package where a wheel was installed, else beside it in the checkout."""

EXPERIMENTS: Path = CONFIG_DIR.parent / "experiments"
"""The folder of the studies, one YAML file each."""
