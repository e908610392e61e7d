"""Samples in memory and where they come from: files, a cache, and the step to tensors."""

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
"""What a data set yields: `blurred` and `sharp` [3, h, w] in [0, 1], `name`, and where known `extent` [1, h, w]."""


@dataclass(frozen=True)
class Sample:
    """One pair as arrays; `extent` is the true length of the blur in pixels, known for generated scenes only."""

    name: str
    blurred: UInt8[np.ndarray, "h w 3"]
    sharp: UInt8[np.ndarray, "h w 3"]
    extent: Float32[np.ndarray, "h w"] | None = None

    def to_item(self) -> Item:
        """Tensors of the sample."""
        item: Item = {"name": self.name, "blurred": to_tensor(self.blurred), "sharp": to_tensor(self.sharp)}
        if self.extent is not None:
            item["extent"] = torch.from_numpy(np.ascontiguousarray(self.extent))[None]
        return item


@runtime_checkable
class Source(Protocol):
    """A fixed list of samples that are made or read one at a time."""

    def __len__(self) -> int:
        """Count of samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, the same on each call."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of sample `index`, known without reading it."""
        ...

    def label(self, index: int) -> str:
        """What to call sample `index` in a message to the user: a path, or a name."""
        ...


class PairFiles:
    """The samples of file pairs; sizes are checked at once, pixels are read when asked for.

    Raises:
        UserError: as `check_sizes` at construction, as `read_image` on access.
    """

    def __init__(self, pairs: Sequence[Pair]):
        self.pairs = list(pairs)
        self._sizes = check_sizes(self.pairs)

    def __len__(self) -> int:
        """Count of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Both images of pair `index`."""
        pair = self.pairs[index]
        return Sample(pair.name, read_image(pair.blurred), read_image(pair.sharp))

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of pair `index`."""
        return self._sizes[index]

    def label(self, index: int) -> str:
        """Path of the blurred image."""
        return str(self.pairs[index].blurred)


class Cached:
    """A source held in memory: every sample is made once, by several processes, when the cache is built.

    Args:
        source: What to hold; its samples must not depend on the process that makes them.
        workers: Processes that fill the cache; 0 fills it in this one.
        title: Words in front of the progress bar.
    """

    def __init__(self, source: Source, workers: int, title: str):
        self.source = source
        filling = DataLoader(
            _Samples(source),
            batch_size=None,
            num_workers=workers if len(source) > 4 * workers else 0,
            worker_init_fn=quiet_worker,
            generator=torch.Generator(),
        )
        bar = {"desc": title, "unit": "pair", "mininterval": 1.0, "leave": False, "disable": None}
        self._samples: list[Sample] = list(tqdm(filling, **bar))

    def __len__(self) -> int:
        """Count of samples."""
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, not a copy: callers leave the arrays alone."""
        return self._samples[index]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of sample `index`."""
        return self.source.size(index)

    def label(self, index: int) -> str:
        """What the source calls sample `index`."""
        return self.source.label(index)


class WholeImages(Dataset[Item]):
    """Items of a source as they are, uncropped: what validation and test read."""

    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        """Count of items."""
        return len(self.source)

    def __getitem__(self, index: int) -> Item:
        """Item `index` at full size."""
        return self.source[index].to_item()

    def name(self, index: int) -> str:
        """Name of item `index`; of file pairs it is known without reading them."""
        return self.source.pairs[index].name if isinstance(self.source, PairFiles) else self.source[index].name

    def __iter__(self) -> Iterator[Item]:
        """All items in order, made one at a time."""
        return (self[index] for index in range(len(self)))


def quiet_worker(_: int) -> None:
    """Prepare a loader's process: OpenCV with one thread, and no end by a signal that reaches the main process too.

    The main process, which may be in the middle of a step, ends its loaders when it ends. A loader that has got SIGTERM
    and is still there after a minute ends on its own.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))


def usable_cores() -> int:
    """Count of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Samples(Dataset[Sample]):
    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return self.source[index]
