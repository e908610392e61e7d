"""A network and its checkpoint."""

from pathlib import Path

import hydra
import pytest
import torch

from tests.checkpoints.writing import write_checkpoint
from tests.training.two_optimizers import MODEL


@pytest.fixture
def network():
    torch.manual_seed(0)
    return hydra.utils.instantiate(MODEL)


@pytest.fixture
def checkpoint(tmp_path, network) -> Path:
    return write_checkpoint(tmp_path / "small.ckpt", network)
