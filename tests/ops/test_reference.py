"""The plain PyTorch filter equals the literal equation."""

import pytest
import torch

from sapnet.ops import chunks, reference
from tests.ops.cases import KINDS, distance, draw
from tests.reference import filtering


@pytest.mark.parametrize("offsets", KINDS)
@pytest.mark.parametrize("depthwise", [False, True])
def test_equals_the_equation_and_its_derivatives(offsets, depthwise):
    case = draw(b=2, h=4, w=3, c=2, o=3, depthwise=depthwise, offsets=offsets).double()
    grad = torch.randn(2, case.points.shape[1], case.weight.shape[0], dtype=torch.float64)
    arrays = [t.numpy() for t in case]
    assert distance(reference.forward(*case), torch.from_numpy(filtering.adaptive_filter(*arrays))) < 1e-13
    gradients = reference.backward(grad, *case, [True] * 4)
    for name, actual, expected in zip(
        case._fields[:4], gradients, filtering.gradients(grad.numpy(), *arrays), strict=True
    ):
        assert distance(actual, torch.from_numpy(expected)) < 1e-13 or not (expected.any() or actual.any()), name


def test_missing_kernel_and_offsets_mean_ones_and_zeros():
    case = draw(kernel=False, offsets=None).double()
    b, length = case.points.shape
    ones, zeros = torch.ones(b, length, 9).double(), torch.zeros(b, length, 9, 2).double()
    expected = filtering.adaptive_filter(*(t.numpy() for t in case._replace(kernel=ones, offsets=zeros)))
    assert distance(reference.forward(*case), torch.from_numpy(expected)) < 1e-13


def test_result_does_not_depend_on_the_chunk_size(monkeypatch):
    case = draw(b=3, h=5, w=5).double()
    whole = reference.forward(*case)
    grad = torch.randn_like(whole)
    gradients = reference.backward(grad, *case, [True] * 4)
    monkeypatch.setattr(chunks, "CPU_CHUNK", 5 * 9 * 3)
    torch.testing.assert_close(reference.forward(*case), whole)
    torch.testing.assert_close(reference.backward(grad, *case, [True] * 4), gradients)
