"""Measured memory and time of networks with known costs."""

import os
import sys
from functools import partial

import pytest
import torch
from torch import nn

from sapnet.errors import UserError
from sapnet.evaluation.footprint import draw_zeros, footprint, in_fresh_process, peak_memory
from sapnet.layers.filtering import PixelDependentFilter
from tests.evaluation.measured_networks import Allocating, Killed, ReportsConditions, Slow, TooLarge

MIB = 2**20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is not available")


@linux
def test_peak_is_the_maximum_of_simultaneous_allocations():
    """Two blocks allocated one after the other count once, two simultaneous blocks count twice."""

    def sequential():
        for _ in range(2):
            torch.ones(64 * MIB, dtype=torch.uint8)

    def simultaneous():
        return torch.ones(64 * MIB, dtype=torch.uint8), torch.ones(64 * MIB, dtype=torch.uint8)

    assert peak_memory(sequential)[1] == pytest.approx(64 * MIB, rel=0.1)
    blocks, peak = peak_memory(simultaneous)
    assert len(blocks) == 2 and peak == pytest.approx(128 * MIB, rel=0.1)


@linux
def test_earlier_peak_is_not_counted():
    torch.ones(256 * MIB, dtype=torch.uint8)
    assert peak_memory(lambda: torch.ones(64 * MIB, dtype=torch.uint8).max())[1] == pytest.approx(64 * MIB, rel=0.1)


def test_peak_is_none_on_devices_without_peak():
    assert peak_memory(lambda: "ran", "meta") == ("ran", None)


@linux
def test_peak_grows_by_the_allocations_of_the_network():
    """64 bytes per pixel of 1024x768 are 48 MiB."""
    allocating, idle = (footprint(partial(Allocating, n), 768, 1024, passes=0) for n in (64, 0))
    assert (allocating.peak_bytes - idle.peak_bytes) / MIB == pytest.approx(48, rel=0.1)
    assert idle.peak_bytes < 8 * MIB and allocating.times == () and allocating.seconds is None


def test_parameter_bytes_and_median_time():
    measured = footprint(partial(Slow, 1000), 8, 8, passes=3)
    assert measured.parameter_bytes == 4 * 5000
    assert not sys.platform.startswith("linux") or measured.total_bytes == measured.peak_bytes + 20000
    assert len(measured.times) == 3 and sorted(measured.times)[1] == measured.seconds and 0.05 <= measured.seconds < 5


def test_pass_uses_evaluation_mode_without_gradients_and_the_same_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(ValueError, match=f"{threads + 1} threads, gradients: False, training: False"):
            footprint(ReportsConditions, 8, 8)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("network", [Killed, TooLarge])
def test_too_little_memory_raises_user_error(network):
    with pytest.raises(UserError, match="12x8 pixels take more memory"):
        footprint(network, 8, 12)


def test_fresh_process_has_another_id():
    assert in_fresh_process(os.getpid) != os.getpid()


def test_draw_zeros_draws_only_zero_weights():
    """The drawn offsets of a filter are pixels wide; other weights keep their values."""
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
