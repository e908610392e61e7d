"""Write checkpoints without a training."""

from pathlib import Path

import torch

from sapnet.checkpoints.files import add_metadata
from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
from tests.training.two_optimizers import MODEL


def write_checkpoint(path: Path, network, network_config=MODEL, steps=70, **changes) -> Path:
    """Write a checkpoint of a network; `changes` are keys of its metadata."""
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    content = {"state_dict": state | {"policy.weight": torch.zeros(2)}}
    add_metadata(content, network_config, steps)
    content["sapnet"] |= changes
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path
