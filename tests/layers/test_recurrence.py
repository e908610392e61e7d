"""Linear recurrence: a literal loop, gradients and memory of the graph."""

import pytest
import torch

from sapnet.layers.recurrence import linear_recurrence


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_equals_a_loop_over_pixels(dim, reverse):
    x, gate = torch.rand(2, 2, 3, 5, 6, dtype=torch.float64) * 2 - 1
    lines, gates = x.transpose(dim, 3).reshape(-1, x.shape[dim]), gate.transpose(dim, 3).reshape(-1, x.shape[dim])
    expected = torch.empty_like(lines)
    for n in range(len(lines)):
        h = 0.0
        for t in reversed(range(x.shape[dim])) if reverse else range(x.shape[dim]):
            h = gates[n, t] * (h - lines[n, t]) + lines[n, t]
            expected[n, t] = h
    expected = expected.reshape(x.transpose(dim, 3).shape).transpose(dim, 3)
    torch.testing.assert_close(linear_recurrence(x, gate, dim, reverse), expected)


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradient(length, reverse):
    x, gate = (torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, gate: linear_recurrence(x, gate, 1, reverse), (x, gate))


def test_zeros_pass_the_input_and_ones_keep_the_past():
    x = torch.rand(4, 3)
    assert torch.equal(linear_recurrence(x, torch.zeros_like(x), 0), x)
    gate = torch.tensor([0.0, 1.0, 1.0, 0.0])[:, None].expand(4, 3)
    assert torch.equal(linear_recurrence(x, gate, 0), x[[0, 0, 0, 3]])


def test_images_without_gradient_steps_store_nothing():
    x = torch.rand(1, 2, 3, 4)
    with torch.no_grad():
        assert linear_recurrence(x, x, 3).grad_fn is None
