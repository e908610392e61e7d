"""Memory traffic and calibration kernel."""

import torch
from torch import nn

from benchmarks.traffic import Traffic, bandwidth, fastest_convolution, traffic

CPU = torch.device("cpu")


def moved(run) -> tuple[int, int]:
    with Traffic() as counted:
        run()
    return counted.read, counted.written


def test_operator_reads_inputs_and_writes_result():
    a, b = torch.zeros(10, 20), torch.zeros(20, 5)
    assert moved(lambda: a @ b) == (4 * (200 + 100), 4 * 50)


def test_views_and_empty_tensors_have_no_traffic():
    a = torch.zeros(10, 20)
    assert moved(lambda: (a.t(), a[2:5], a.reshape(200), torch.empty(9), a.permute(1, 0))) == (0, 0)
    assert moved(lambda: a.t().contiguous()) == (800, 800)


def test_traffic_of_in_place_and_expanded_tensors():
    a, row = torch.zeros(10, 20), torch.zeros(20)
    assert moved(lambda: a.relu_()) == (800, 800)
    assert moved(lambda: a.add_(row.expand(10, 20))) == (800 + 80, 800)


def test_network_is_counted_on_the_meta_device():
    """A 1x1 convolution from 3 to 5 channels on 8 x 4 pixels with bias."""
    counted = traffic(lambda: nn.Conv2d(3, 5, 1), 8, 4)
    assert (counted.read, counted.written) == (4 * (3 * 32 + 15 + 5), 4 * 5 * 32)


def test_calibration_has_the_stated_number_of_multiply_adds():
    kernel = fastest_convolution(CPU, side=16)
    assert kernel.macs in (16 * 16 * 64 * 64 * 25, 16 * 16 * 128 * 128 * 9)
    with Traffic() as counted:
        kernel.run()
    assert counted.written in (4 * 16 * 16 * 64, 4 * 16 * 16 * 128)
    channels = counted.written // (4 * 16 * 16)
    assert kernel.name.startswith({64: "5x5, 64 channels", 128: "3x3, 128 channels"}[channels])


def test_bandwidth_is_positive():
    assert 1e7 < bandwidth(CPU, 1 << 18) < 1e13
