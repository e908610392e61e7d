"""The console scripts `sapnet-train`, `sapnet-evaluate` and `sapnet-deblur`.

They handle signals before they import anything that takes seconds, as `python -m sapnet.train` does.
"""

import importlib
from typing import Any

from sapnet import interrupts


def train() -> Any:
    """Run `sapnet-train`."""
    return _run("sapnet.train")


def evaluate() -> Any:
    """Run `sapnet-evaluate`."""
    return _run("sapnet.evaluate")


def deblur() -> Any:
    """Run `sapnet-deblur`."""
    return _run("sapnet.deblur")


def _run(module: str) -> Any:
    interrupts.install()
    return importlib.import_module(module).main()
