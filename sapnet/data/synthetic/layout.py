"""Synthetic scenes as files in the folder layout of GoPro."""

import os
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from sapnet.data.synthetic.dataset import EXTENT_STEP, SyntheticScenes
from sapnet.errors import UserError
from sapnet.files import write_atomically

SEQUENCE = 100  # scenes per sequence, as in most sequences of GoPro


def write_gopro_layout(
    dataset: SyntheticScenes, root: str | os.PathLike, split: str | None = None, progress: bool = False
) -> list[Path]:
    """Write every item as root/SPLIT/SEQUENCE/{blur,sharp,extent}/NNNNNN.png.

    Images are 8-bit RGB, and the extent is a 16-bit grey image in units of 1/256 pixel, so the files contain the items
    without loss. A sequence has a hundred scenes. The folder of the blurred images is `blur` for every gamma.

    Args:
        dataset: The scenes.
        root: Parent folder of the splits.
        split: Name of the split's folder; by default the split of the data set. GoPro has "train" and "test".
        progress: Whether to show a progress bar.

    Returns:
        The folders of the sequences.

    Raises:
        UserError: The split's folder is not empty or cannot be written.
    """
    folder = Path(root) / (split or dataset.split)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder: remove it or choose another one")
    sequences = []
    try:
        for index in tqdm(range(len(dataset)), desc=str(folder), unit="scene", disable=not progress):
            item = dataset[index]
            sequence = folder / f"synthetic{dataset.seed}_{index // SEQUENCE:02d}"
            if sequence not in sequences:
                sequences.append(sequence)
            name = f"{index % SEQUENCE + 1:06d}.png"
            for kind, key in (("blur", "blurred"), ("sharp", "sharp")):
                _write(sequence / kind / name, _pixels(item[key]))
            _write(sequence / "extent" / name, (item["extent"][0].numpy() / EXTENT_STEP).astype(np.uint16))
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    return sequences


def read_extent(path: str | os.PathLike) -> torch.Tensor:
    """Read the blur extent `[1, h, w]` in pixels from a file of a folder `extent`.

    Raises:
        UserError: The file is missing or is not a 16-bit grey image.
    """
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if Path(path).is_file() else None
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 2:
        raise UserError(f"{path} is not a 16-bit grey image: choose a file of a folder `extent`")
    return torch.from_numpy(stored.astype(np.float32) * np.float32(EXTENT_STEP))[None]


def _pixels(image: torch.Tensor) -> np.ndarray:
    rgb = (image * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)


def _write(path: Path, pixels: np.ndarray) -> None:
    write_atomically(path, cv2.imencode(".png", pixels)[1].tobytes(), durable=False)
