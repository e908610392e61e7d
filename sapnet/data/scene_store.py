"""Synthetic scenes in a file that is shared by several runs."""

import hashlib
import io
from pathlib import Path
from typing import cast

import numpy as np

from sapnet.data import synthetic
from sapnet.data.samples import Cached, Sample, Source, usable_cores
from sapnet.data.synthetic.dataset import EXTENT_STEP
from sapnet.errors import UserError
from sapnet.files import exclusive, write_atomically


class StoredScenes:
    """Synthetic scenes that are rendered once and read from a file afterwards.

    The name of the file is a hash of the parameters of the scenes and of the code that renders them. Processes that
    need the same scenes wait for the one that renders them.

    Args:
        scenes: The scenes, rendered only if the file does not exist.
        store: Folder of the file.
        key: Parameters of the scenes.
        title: Description of the progress bar.

    Raises:
        UserError: The folder cannot be written, or the file is damaged.
    """

    def __init__(self, scenes: Source, store: str | Path, key: tuple, title: str):
        self.scenes = scenes
        path = Path(store) / f"scenes-{_digest(key)}.npz"
        try:
            with exclusive(path.with_suffix(".lock")):
                if not path.is_file():
                    write_atomically(path, _packed(Cached(scenes, usable_cores(), title)))
        except OSError as error:
            raise UserError(f"data.store={store}: it cannot be written ({error.strerror or error}).") from error
        try:
            with np.load(path) as arrays:
                self._blurred, self._sharp, self._extent = (arrays[key] for key in ("blurred", "sharp", "extent"))
        except Exception as error:  # numpy and zipfile raise many kinds of errors for a damaged file
            raise UserError(f"{path} is damaged: delete it, and it is rendered again.") from error

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        extent = self._extent[index].astype(np.float32) * np.float32(EXTENT_STEP)
        return Sample(self.label(index), self._blurred[index], self._sharp[index], extent)

    def size(self, index: int) -> tuple[int, int]:
        return self.scenes.size(index)

    def label(self, index: int) -> str:
        return self.scenes.label(index)


def _digest(key: tuple) -> str:
    digest = hashlib.sha256(repr(key).encode())
    for source in sorted(Path(synthetic.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _packed(samples: Cached) -> memoryview:
    stored = [samples[index] for index in range(len(samples))]
    extents = [cast("np.ndarray", sample.extent) for sample in stored]
    file = io.BytesIO()
    np.savez(
        file,
        blurred=np.stack([sample.blurred for sample in stored]),
        sharp=np.stack([sample.sharp for sample in stored]),
        extent=np.stack([np.rint(extent / EXTENT_STEP).astype(np.uint16) for extent in extents]),
    )
    return file.getbuffer()
