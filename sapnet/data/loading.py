"""Training batches as one endless, reproducible stream that a checkpoint can cut anywhere and resume."""

from collections.abc import Iterator, Sized
from itertools import count, islice
from typing import cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sapnet.data.samples import Item, quiet_worker
from sapnet.errors import UserError

Batch = dict[str, torch.Tensor | list[str]]
"""Collated items: `blurred` and `sharp` [b, 3, h, w], `name` a list, and where known `extent` [b, 1, h, w]."""


class StreamSampler(Sampler[list[tuple[int, int]]]):
    """Batches of `(epoch, index)` keys from the endless row of shuffled epochs, from batch `start` on, without end.

    Epoch e visits every sample once, in an order that depends on the seed and e alone. Batches are always full: one
    that begins in an epoch may end in the next, so no sample is dropped and sets smaller than a batch work. With
    several ranks each takes its own part of a batch of `batch * ranks` keys.
    """

    def __init__(self, samples: int, batch: int, seed: int, rank: int = 0, ranks: int = 1, start: int = 0):
        self.samples, self.batch, self.seed, self.rank, self.ranks = samples, batch, seed, rank, ranks
        self.start = start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Keys of batch `start`, of the next one, and so on."""
        for step in count(self.start):
            first = (step * self.ranks + self.rank) * self.batch
            yield list(islice(self._keys(first), self.batch))

    def _keys(self, first: int) -> Iterator[tuple[int, int]]:
        epoch, at = divmod(first, self.samples)
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.samples)
            yield from ((epoch, int(index)) for index in order[at:])
            epoch, at = epoch + 1, 0


class ResumableLoader:
    """Training loader with a position: a run resumed from a checkpoint sees the batches it would have seen.

    A plain `DataLoader` repeats the start of an epoch after a resume and never shows its tail. Here each pass yields
    `len(loader)` batches from where the last one stopped, wherever that was, so passes that a trainer cuts short
    (`limit_train_batches`) resume exactly too, and loader processes work on while one pass ends and the next begins.
    Batches do not depend on the number of processes. It is no subclass of `DataLoader`, so that trainers do not put a
    sampler of their own into it: `rank` and `ranks` are given instead.

    Args:
        dataset: Indexed by `(epoch, index)`, as `RandomCrops`.
        batch: Items in a batch, on each rank.
        seed: Start of the random order.
        workers: Processes that make items; 0 makes them in this one.
        rank: Number of this process among those that train together.
        ranks: How many processes train together.
    """

    def __init__(self, dataset: Dataset[Item], batch: int, seed: int, workers: int = 0, rank: int = 0, ranks: int = 1):
        self._sampler = StreamSampler(len(cast(Sized, dataset)), batch, seed, rank, ranks)
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._sampler,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=quiet_worker,
            # Without one of its own it would draw from the generator that the network's randomness comes from.
            generator=torch.Generator(),
        )
        self._stream: Iterator[Batch] | None = None
        self._batches = 0

    def __len__(self) -> int:
        """Count of batches in a pass: as many as it takes to show every sample."""
        return -(-self._sampler.samples // (self._sampler.batch * self._sampler.ranks))

    def __iter__(self) -> Iterator[Batch]:
        """One pass, from the first batch that was not consumed yet."""
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
        """End the loader processes; the next pass starts new ones where this one stopped."""
        # Left to the garbage collector, which a traceback may keep waiting, it takes 5 seconds a process.
        shut_down = getattr(self._stream, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()
        self._stream = None

    def state_dict(self) -> dict[str, int]:
        """Batches consumed since the start of training, and what the order depends on."""
        return {"batches": self._batches, **self._order()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches that the state counts.

        Raises:
            UserError: the order was made from other data, batch size, seed or number of processes.
        """
        for key, now in self._order().items():
            if state[key] != now:
                raise UserError(
                    f"the checkpoint was made with {key}={state[key]} and this run has {key}={now}, so it cannot go on"
                    " with the same batches: restore the setting or start a new run."
                )
        self.close()
        self._batches = state["batches"]

    def _order(self) -> dict[str, int]:
        return {key: getattr(self._sampler, key) for key in ("samples", "batch", "seed", "ranks")}
