"""Samples from files or a cache, and their conversion to tensors."""

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sapnet.data.images import read_image, to_tensor
from sapnet.data.pairs import Pair, check_sizes

Item = dict[str, Tensor | str]
"""Item of a data set: `blurred` and `sharp` [3, h, w] in [0, 1], `name`, and optionally `extent` [1, h, w]."""


@dataclass(frozen=True)
class Sample:
    """A pair of images as arrays.

    Attributes:
        name: Name, unique in the data set.
        blurred: Blurred image.
        sharp: Sharp image.
        extent: True extent of the blur in pixels, available for synthetic scenes.
    """

    name: str
    blurred: UInt8[np.ndarray, "h w 3"]
    sharp: UInt8[np.ndarray, "h w 3"]
    extent: Float32[np.ndarray, "h w"] | None = None

    def to_item(self) -> Item:
        """Convert the sample to tensors."""
        item: Item = {"name": self.name, "blurred": to_tensor(self.blurred), "sharp": to_tensor(self.sharp)}
        if self.extent is not None:
            item["extent"] = torch.from_numpy(np.ascontiguousarray(self.extent))[None]
        return item


@runtime_checkable
class Source(Protocol):
    """A fixed sequence of samples that are loaded one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Return a sample, the same on each call."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Return the height and width of a sample without loading it."""
        ...

    def label(self, index: int) -> str:
        """Return the path or name of a sample for messages."""
        ...


class PairFiles:
    """Samples of file pairs. Sizes are checked on construction, images are read on access.

    Args:
        pairs: The file pairs.

    Raises:
        UserError: The images of a pair differ in size, or a file cannot be read.
    """

    def __init__(self, pairs: Sequence[Pair]):
        self.pairs = list(pairs)
        self._sizes = check_sizes(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        return Sample(pair.name, read_image(pair.blurred), read_image(pair.sharp))

    def size(self, index: int) -> tuple[int, int]:
        return self._sizes[index]

    def label(self, index: int) -> str:
        return str(self.pairs[index].blurred)


class Cached:
    """Samples held in memory, loaded by several processes on construction.

    Args:
        source: The samples, which must not depend on the process that loads them.
        workers: Number of loader processes; 0 loads in this process.
        title: Description of the progress bar.
    """

    def __init__(self, source: Source, workers: int, title: str):
        self.source = source
        loader = DataLoader(
            _Samples(source),
            batch_size=None,
            num_workers=workers if len(source) > 4 * workers else 0,
            worker_init_fn=init_worker,
            generator=torch.Generator(),
        )
        bar = {"desc": title, "unit": "pair", "mininterval": 1.0, "leave": False, "disable": None}
        self._samples: list[Sample] = list(tqdm(loader, **bar))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample whose arrays are shared and must not be modified."""
        return self._samples[index]

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(index)

    def label(self, index: int) -> str:
        return self.source.label(index)


class WholeImages(Dataset[Item]):
    """Whole images of a source as items, for validation and test."""

    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item:
        return self.source[index].to_item()

    def name(self, index: int) -> str:
        """Return the name of an item; file pairs are not read for it."""
        return self.source.pairs[index].name if isinstance(self.source, PairFiles) else self.source[index].name

    def __iter__(self) -> Iterator[Item]:
        """Iterate over all items in order."""
        return (self[index] for index in range(len(self)))


def init_worker(_: int) -> None:
    """Initialise a loader process: limit OpenCV to one thread, and leave the handling of signals to the main process.

    The main process may be in the middle of a step and stops its loaders when it ends. A loader process that received
    SIGTERM ends by itself after a minute.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))


def usable_cores() -> int:
    """Return the number of processor cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Samples(Dataset[Sample]):
    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return self.source[index]
