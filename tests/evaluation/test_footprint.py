"""Measured memory and time against networks whose appetite is known."""

import os
import sys
from functools import partial

import pytest
import torch
from torch import nn

from sapnet.errors import UserError
from sapnet.evaluation.footprint import draw_zeros, footprint, in_fresh_process, peak_memory
from sapnet.layers.filtering import PixelDependentFilter
from tests.evaluation.hungry import Greedy, Hungry, Killed, Slow, Tells

MIB = 2**20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no peak is measured here")


@linux
def test_the_peak_is_what_a_pass_held_at_once():
    """Two blocks that live one after the other count once, together they count twice."""

    def one_by_one():
        for _ in range(2):
            torch.ones(64 * MIB, dtype=torch.uint8)

    def together():
        return torch.ones(64 * MIB, dtype=torch.uint8), torch.ones(64 * MIB, dtype=torch.uint8)

    assert peak_memory(one_by_one)[1] == pytest.approx(64 * MIB, rel=0.1)
    blocks, peak = peak_memory(together)
    assert len(blocks) == 2 and peak == pytest.approx(128 * MIB, rel=0.1)


@linux
def test_a_peak_before_the_run_does_not_count():
    torch.ones(256 * MIB, dtype=torch.uint8)
    assert peak_memory(lambda: torch.ones(64 * MIB, dtype=torch.uint8).max())[1] == pytest.approx(64 * MIB, rel=0.1)


def test_where_no_peak_is_kept_there_is_none():
    """A figure that was not measured must not look like one that was."""
    assert peak_memory(lambda: "ran", "meta") == ("ran", None)


@linux
def test_a_networks_peak_grows_by_what_it_fills():
    """64 bytes a pixel on 1024x768: 48 MiB more than a network that fills nothing."""
    fills, idle = (footprint(partial(Hungry, n), 768, 1024, passes=0) for n in (64, 0))
    assert (fills.peak_bytes - idle.peak_bytes) / MIB == pytest.approx(48, rel=0.1)
    assert idle.peak_bytes < 8 * MIB and fills.times == () and fills.seconds is None


def test_parameters_and_buffers_stand_apart_and_the_time_is_the_median():
    found = footprint(partial(Slow, 1000), 8, 8, passes=3)
    assert found.parameter_bytes == 4 * 5000
    assert not sys.platform.startswith("linux") or found.total_bytes == found.peak_bytes + 20000
    assert len(found.times) == 3 and sorted(found.times)[1] == found.seconds and 0.05 <= found.seconds < 5


def test_a_pass_is_one_of_inference_on_as_many_threads_as_here():
    """Gradients would double the memory, other threads be the time of another machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(ValueError, match=f"{threads + 1} threads, gradients: False, training: False"):
            footprint(Tells, 8, 8)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("network", [Killed, Greedy])
def test_too_little_memory_ends_in_one_sentence(network):
    with pytest.raises(UserError, match="12x8 pixels take more memory"):
        footprint(network, 8, 12)


def test_a_fresh_process_is_another_one():
    assert in_fresh_process(os.getpid) != os.getpid()


def test_weights_that_start_at_zero_are_drawn():
    """A new filter reads in perfect order; drawn, its offsets are pixels wide, and other weights stay."""
    network = PixelDependentFilter(16)
    others = network.weight.clone()
    draw_zeros(network)
    _, offsets = network.predict(torch.randn(1, 100, 16))
    assert 1 < offsets.std() < 8 and torch.equal(network.weight, others)
    again = PixelDependentFilter(16)
    draw_zeros(again)
    assert torch.equal(again.f_off.weight, network.f_off.weight)
    plain = nn.Linear(4, 4)
    weight = plain.weight.clone()
    draw_zeros(plain)
    assert torch.equal(plain.weight, weight)
