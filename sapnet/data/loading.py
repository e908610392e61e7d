"""Training batches as an endless reproducible stream that can be resumed at any batch."""

from collections.abc import Iterator, Sized
from itertools import count, islice
from typing import cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sapnet.data.samples import Item, init_worker
from sapnet.errors import UserError

Batch = dict[str, torch.Tensor | list[str]]
"""Collated items: `blurred` and `sharp` [b, 3, h, w], a list `name`, and optionally `extent` [b, 1, h, w]."""


class StreamSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of `(epoch, index)` keys from a sequence of shuffled epochs.

    Each epoch visits every sample once, in an order that depends only on the seed and the epoch. Batches are always
    full: a batch can extend into the next epoch, so no sample is dropped and data sets smaller than a batch work. With
    several ranks, each takes its part of a batch of `batch * ranks` keys.

    Args:
        samples: Number of samples.
        batch: Number of keys per batch and rank.
        seed: Seed of the order.
        rank: Rank of this process.
        ranks: Number of processes that train together.
        start: Index of the first batch.
    """

    def __init__(self, samples: int, batch: int, seed: int, rank: int = 0, ranks: int = 1, start: int = 0):
        self.samples, self.batch, self.seed, self.rank, self.ranks = samples, batch, seed, rank, ranks
        self.start = start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Iterate over the batches from `start` on."""
        for step in count(self.start):
            first = (step * self.ranks + self.rank) * self.batch
            yield list(islice(self._keys(first), self.batch))

    def _keys(self, first: int) -> Iterator[tuple[int, int]]:
        epoch, position = divmod(first, self.samples)
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.samples)
            yield from ((epoch, int(index)) for index in order[position:])
            epoch, position = epoch + 1, 0


class ResumableLoader:
    """Training loader whose position is saved in checkpoints: a resumed run sees the batches of an uninterrupted one.

    A plain `DataLoader` starts an epoch again after a resume and skips its end. Here each pass yields `len(loader)`
    batches from the position where the last one stopped, also if a trainer cuts it short (`limit_train_batches`), and
    the loader processes continue between passes. Batches do not depend on the number of processes. This class is not a
    subclass of `DataLoader`, so that trainers do not replace its sampler; `rank` and `ranks` are passed instead.

    Args:
        dataset: Data set indexed by `(epoch, index)`, such as `RandomCrops`.
        batch: Number of items per batch and rank.
        seed: Seed of the order.
        workers: Number of loader processes; 0 loads in this process.
        rank: Rank of this process.
        ranks: Number of processes that train together.
    """

    def __init__(self, dataset: Dataset[Item], batch: int, seed: int, workers: int = 0, rank: int = 0, ranks: int = 1):
        self._sampler = StreamSampler(len(cast(Sized, dataset)), batch, seed, rank, ranks)
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._sampler,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=init_worker,
            # Without this the loader would consume numbers of the global random generator.
            generator=torch.Generator(),
        )
        self._stream: Iterator[Batch] | None = None
        self._batches = 0

    def __len__(self) -> int:
        """Number of batches per pass, in which every sample is visited."""
        return -(-self._sampler.samples // (self._sampler.batch * self._sampler.ranks))

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over one pass from the first batch that was not consumed."""
        for _ in range(len(self)):
            if self._stream is None:
                self._sampler.start = self._batches
                self._stream = iter(self._loader)
            try:
                batch = next(self._stream)
            except BaseException:
                self.close()
                raise
            self._batches += 1
            yield batch

    def close(self) -> None:
        """Stop the loader processes; the next pass starts new ones at the current position."""
        # The garbage collector would take 5 seconds per process, and can be delayed by a traceback.
        shut_down = getattr(self._stream, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()
        self._stream = None

    def state_dict(self) -> dict[str, int]:
        """Return the number of consumed batches and the parameters of the order."""
        return {"batches": self._batches, **self._order()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the consumed batches of a state.

        Raises:
            UserError: The state has a different number of samples, batch size, seed or number of processes.
        """
        for key, now in self._order().items():
            if state[key] != now:
                raise UserError(
                    f"the checkpoint has {key}={state[key]} and this run has {key}={now}, so the batches would differ:"
                    " restore the setting or start a new run."
                )
        self.close()
        self._batches = state["batches"]

    def _order(self) -> dict[str, int]:
        return {key: getattr(self._sampler, key) for key in ("samples", "batch", "seed", "ranks")}
