"""Generated scenes kept in a file, so that many runs make them once."""

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
    """Samples of generated scenes, read from a file that the first process with this store and these scenes wrote.

    The file's name is a hash of what the scenes depend on and of the code that makes them. Others that want the same
    scenes meanwhile wait.

    Args:
        scenes: What is to be stored; made only where the file is missing.
        store: The folder.
        key: What the scenes depend on.
        title: Words in front of the progress bar.

    Raises:
        UserError: The folder cannot be written, or the file in it is damaged.
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
        except Exception as error:  # numpy and zipfile have no class of their own for a broken file
            raise UserError(f"{path} is damaged: delete it, and it is made again.") from error

    def __len__(self) -> int:
        """Count of scenes."""
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        """Scene `index`."""
        extent = self._extent[index].astype(np.float32) * np.float32(EXTENT_STEP)
        return Sample(self.label(index), self._blurred[index], self._sharp[index], extent)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a scene."""
        return self.scenes.size(index)

    def label(self, index: int) -> str:
        """Name of scene `index`."""
        return self.scenes.label(index)


def _digest(key: tuple) -> str:
    digest = hashlib.sha256(repr(key).encode())
    for source in sorted(Path(synthetic.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _packed(samples: Cached) -> memoryview:
    every = [samples[index] for index in range(len(samples))]
    extents = [cast("np.ndarray", sample.extent) for sample in every]
    file = io.BytesIO()
    np.savez(
        file,
        blurred=np.stack([sample.blurred for sample in every]),
        sharp=np.stack([sample.sharp for sample in every]),
        extent=np.stack([np.rint(extent / EXTENT_STEP).astype(np.uint16) for extent in extents]),
    )
    return file.getbuffer()
