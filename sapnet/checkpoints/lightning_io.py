"""Atomic writing and safe reading of checkpoints for Lightning.

A module of its own, because reading a checkpoint without training takes no Lightning, whose import takes seconds.
"""

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from sapnet.checkpoints.files import read_plain
from sapnet.errors import UserError
from sapnet.files import write_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint reading and writing for Lightning that is safe against crashes, full disks and malicious files.

    A checkpoint is written next to its target, flushed to the disk and renamed: at any time the target is the previous
    complete checkpoint or the new one. Reading accepts only tensors and plain values (`weights_only=True`).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            UserError: The file cannot be written (full disk, no permission). The file at `path` is unchanged.
        """
        data = io.BytesIO()
        torch.save(checkpoint, data)
        try:
            write_atomically(path, data.getbuffer())
        except OSError as error:
            raise UserError(
                f"{path}: the checkpoint cannot be written ({error.strerror or error}); "
                "the previous checkpoint is kept: free some space and resume."
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, which may be one that sapnet did not write; `weights_only` is always True.

        Raises:
            UserError: The file is missing, a folder, damaged, or contains more than tensors and plain values.
        """
        return read_plain(Path(path), map_location)
