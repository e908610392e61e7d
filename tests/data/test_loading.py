"""The training stream: complete epochs, independence of workers, and resuming at any batch."""

import math
import multiprocessing
from itertools import chain, islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset

from sapnet.data.loading import ResumableLoader, StreamSampler
from sapnet.errors import UserError


class Keys(Dataset):
    """Items that are their own keys."""

    def __init__(self, samples: int):
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        return torch.tensor(key)


def passes(loader: ResumableLoader, count: int) -> list[list[list[int]]]:
    return [batch.tolist() for _ in range(count) for batch in loader]


sizes = {"samples": st.integers(1, 23), "batch": st.integers(1, 9), "seed": st.integers(0, 5)}


def first(sampler: StreamSampler, batches: int) -> list[list[tuple[int, int]]]:
    return list(islice(sampler, batches))


@given(**sizes)
def test_epoch_visits_every_sample_once_in_full_batches(samples: int, batch: int, seed: int) -> None:
    batches = first(StreamSampler(samples, batch, seed), 4 * samples)
    assert all(len(keys) == batch for keys in batches)
    keys = list(chain.from_iterable(batches))
    for epoch in range(4):
        assert sorted(keys[epoch * samples : (epoch + 1) * samples]) == [(epoch, index) for index in range(samples)]
    assert len(ResumableLoader(Keys(samples), batch, seed)) == math.ceil(samples / batch)


@given(**sizes, start=st.integers(0, 30))
def test_stream_with_a_start_equals_the_end_of_the_stream(samples: int, batch: int, seed: int, start: int) -> None:
    whole = first(StreamSampler(samples, batch, seed), start + 5)
    assert first(StreamSampler(samples, batch, seed, start=start), 5) == whole[start:]


@given(**sizes, ranks=st.integers(1, 4))
def test_ranks_share_the_batches_of_a_single_process(samples: int, batch: int, seed: int, ranks: int) -> None:
    """Each sample of a step is on one rank only, in the same order as on a single device."""
    parts = [first(StreamSampler(samples, batch, seed, rank, ranks), 9) for rank in range(ranks)]
    together = first(StreamSampler(samples, batch * ranks, seed), 9)
    assert [list(chain.from_iterable(step)) for step in zip(*parts, strict=True)] == together
    assert len(ResumableLoader(Keys(samples), batch, seed, ranks=ranks)) == math.ceil(samples / (batch * ranks))


def test_order_depends_on_seed_and_epoch() -> None:
    one, two = passes(ResumableLoader(Keys(20), 20, seed=0), 2)
    (other,) = passes(ResumableLoader(Keys(20), 20, seed=1), 1)
    orders = [[index for _, index in batch] for batch in (one, two, other)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(workers: int) -> None:
    expected = passes(ResumableLoader(Keys(7), 2, seed=3), 3)
    assert passes(ResumableLoader(Keys(7), 2, seed=3, workers=workers), 3) == expected


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("consumed", [0, 1, 3, 4, 6])
def test_loader_continues_from_its_state(workers: int, consumed: int) -> None:
    """Also after the last batch of a pass (4)."""
    expected = passes(ResumableLoader(Keys(7), 2, seed=3), 3)
    first = ResumableLoader(Keys(7), 2, seed=3, workers=workers)
    seen = []
    while len(seen) < consumed:
        for batch in first:
            seen.append(batch.tolist())
            if len(seen) == consumed:
                break
    second = ResumableLoader(Keys(7), 2, seed=3, workers=workers)
    second.load_state_dict(first.state_dict())
    rest = passes(second, 1)
    assert seen + rest == expected[: consumed + len(first)]


def test_closed_loader_has_no_processes_and_continues() -> None:
    before = multiprocessing.active_children()
    loader = ResumableLoader(Keys(7), 2, seed=3, workers=1)
    one = next(iter(loader)).tolist()
    assert len(multiprocessing.active_children()) == len(before) + 1
    loader.close()
    assert multiprocessing.active_children() == before
    assert [one, *passes(loader, 1)] == passes(ResumableLoader(Keys(7), 2, seed=3), 2)[:5]


def test_loading_does_not_change_the_global_random_state() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    passes(ResumableLoader(Keys(7), 2, seed=3), 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 8}, "samples=7 and this run has samples=8"),
        ({"batch": 3}, "batch=2 and this run has batch=3"),
        ({"seed": 4}, "seed=3 and this run has seed=4"),
        ({"ranks": 2}, "ranks=1 and this run has ranks=2"),
    ],
)
def test_state_of_a_different_order_is_rejected(change: dict[str, int], message: str) -> None:
    state = ResumableLoader(Keys(7), 2, seed=3).state_dict()
    settings = {"batch": 2, "seed": 3} | {key: value for key, value in change.items() if key != "samples"}
    other = ResumableLoader(Keys(change.get("samples", 7)), **settings)
    with pytest.raises(UserError, match=message):
        other.load_state_dict(state)
