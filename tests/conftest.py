"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

# Checks all arguments and results in the package against their annotations, including the shapes of tensors. As for
# static type checkers (PEP 484), `float` includes `int`. It must be installed before the first import of the package.
install_import_hook("sapnet", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
if not torch.cuda.is_available():
    # Read when Triton is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real blurred/sharp pairs; skip the test if there is none."""
    folder = Path(os.environ.get("SAPNET_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SAPNET_DATA to run this test")
    return folder
