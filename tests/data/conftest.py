"""Fixtures of small image folders in the layouts of real data sets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sapnet.data.images import write_image


@pytest.fixture
def write_pair() -> Callable[..., None]:
    """Function that writes a pair of random images, seeded by their paths."""

    def write(blurred: Path, sharp: Path, height: int = 20, width: int = 28) -> None:
        for path in (blurred, sharp):
            rng = np.random.default_rng([*path.as_posix().encode()])
            write_image(path, rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    return write


@pytest.fixture
def gopro(tmp_path: Path, write_pair: Callable[..., None]) -> Path:
    """A data set in GoPro's layout: 4 training sequences of 3 pairs, 2 test sequences of 2."""
    root = tmp_path / "gopro"
    for split, sequences, frames in (("train", 4, 3), ("test", 2, 2)):
        for sequence in range(sequences):
            folder = root / split / f"GOPR{split}_{sequence:02d}"
            for frame in range(1, frames + 1):
                write_pair(folder / "blur" / f"{frame:06d}.png", folder / "sharp" / f"{frame:06d}.png")
    return root


@pytest.fixture
def reds(tmp_path: Path, write_pair: Callable[..., None]) -> Path:
    """A data set in REDS's layout, with validation folders: 2 scenes of 3 pairs in each split."""
    root = tmp_path / "reds"
    for split in ("train", "val", "test"):
        for frame in range(6):
            name = f"00{frame // 3}/{frame % 3:08d}.png"
            write_pair(root / split / f"{split}_blur" / name, root / split / f"{split}_sharp" / name)
    return root
