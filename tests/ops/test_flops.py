"""FLOP counts equal counts by hand."""

import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sapnet.ops import adaptive_filter
from tests.ops.cases import draw


def count(run) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter:
        run()
    return {str(op).split(".")[-1]: flops for op, flops in counter.get_flop_counts()["Global"].items()}


def test_without_kernel_and_offsets_the_count_is_that_of_the_convolution():
    case = draw(points="all")
    actual = count(lambda: adaptive_filter(case.canvas, case.weight))["adaptive_filter"]
    assert actual == count(lambda: F.conv2d(case.canvas.permute(0, 3, 1, 2), case.weight, padding=1))["convolution"]


def test_every_part_equals_the_count_by_hand():
    """2 images x 15 points x 9 taps, 3 channels in, 4 out."""
    case, taps = draw(), 2 * 15 * 9
    mixing, corners, v = 3 * 4, 4 * 3, 3
    counts = count(lambda: adaptive_filter(*case.leaves()).sum().backward())
    assert counts["adaptive_filter"] == 2 * taps * (mixing + corners + v)
    # Transposed mixing; scatter to the canvas; dot products of the corners; for the weight, sampling and mixing.
    backward = mixing + (corners + v) + corners + (corners + v + mixing)
    assert counts["adaptive_filter_backward"] == 2 * taps * backward


def test_depthwise_mixing_is_linear_in_the_channels():
    case = draw(depthwise=True, kernel=False, offsets=None, points="all")
    assert count(lambda: adaptive_filter(*case))["adaptive_filter"] == 2 * (2 * 30 * 9) * 3


def test_only_needed_gradients_are_counted():
    case, taps = draw(offsets=None), 2 * 15 * 9
    kernel = case.kernel.clone().requires_grad_()
    counts = count(lambda: adaptive_filter(*case._replace(kernel=kernel)).sum().backward())
    assert counts["adaptive_filter_backward"] == 2 * taps * (3 * 4 + 3)
    weight = case.weight.clone().requires_grad_()
    counts = count(lambda: adaptive_filter(*case._replace(weight=weight)).sum().backward())
    assert counts["adaptive_filter_backward"] == 2 * taps * (3 + 3 * 4)


def test_fake_and_meta_tensors_give_the_same_count():
    case = draw()
    real = count(lambda: adaptive_filter(*case))
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(t) for t in case]
        assert count(lambda: adaptive_filter(*fake)) == real
        assert adaptive_filter(*fake).shape == torch.Size([2, 15, 4])
    assert count(lambda: adaptive_filter(*(t.to("meta") for t in case))) == real
