"""Fused heads equal separate linear layers and activations."""

import pytest
import torch
from torch import nn

from sapnet.ops import backend, cpu
from sapnet.ops.heads import Head, activate, apply_heads
from tests.ops.cases import distance

KINDS = ("none", "tanh", "softmax", "sigmoid", "softmax")


@pytest.fixture(autouse=True)
def compiled():
    if backend.get_backend("cpu") is not cpu:
        pytest.skip("the kernel cannot be built here")


def draw(channels: int, rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, list[Head], list[torch.Tensor]]:
    torch.manual_seed(0)
    widths = (25, 50, max(1, channels // 2), 1, 3)
    heads = [Head(nn.Linear(channels, width).to(dtype), kind) for width, kind in zip(widths, KINDS, strict=True)]
    features = torch.randn(2, rows, channels, dtype=dtype, requires_grad=True)
    return features, heads, [features, *(p for head in heads for p in head.linear.parameters())]


def separate(features, heads, scale):
    return [activate(head.linear(features), head.activation, scale) for head in heads]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("channels", "rows"), [(24, 101), (5, 7), (1, 1), (32, 48), (70, 30)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-5), (torch.float64, 1e-13)])
def test_fused_result_equals_separate_operators(channels, rows, dtype, tolerance, threads):
    features, heads, leaves = draw(channels, rows, dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        actual, expected = apply_heads(features, heads, 8.0), separate(features, heads, 8.0)
        grads = [torch.randn_like(x) for x in expected]
        actual += torch.autograd.grad(actual, leaves, grads)
    finally:
        torch.set_num_threads(before)
    expected += torch.autograd.grad(expected, leaves, grads)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape and distance(a, b) < tolerance


def test_large_and_small_logits():
    """The kernel's tanh and exp in float32 are accurate in the tails, near 0, and for NaN and infinity."""
    logits = torch.tensor([0.0, -0.0, 1e-30, 1e-4, -0.6, 0.63, 5.0, -9.0, 50.0, -1e4, torch.inf, -torch.inf, torch.nan])
    linear = nn.Linear(1, 1)
    nn.init.ones_(linear.weight), nn.init.zeros_(linear.bias)
    for kind in ("tanh", "sigmoid"):
        (actual,) = apply_heads(logits[:, None], [Head(linear, kind)])
        exact = activate(logits.double(), kind)
        torch.testing.assert_close(actual[:, 0].double(), exact, rtol=1e-6, atol=1e-37, equal_nan=True)
    rows = nn.Linear(3, 3)
    nn.init.eye_(rows.weight), nn.init.zeros_(rows.bias)
    logits = torch.tensor([[900.0, 0.0, -900.0], [1.0, 2.0, 3.0], [torch.nan, 0.0, 1.0]])
    (actual,) = apply_heads(logits, [Head(rows, "softmax")])
    torch.testing.assert_close(actual, logits.softmax(-1), equal_nan=True)
    # Not subnormal numbers, which would slow down all products.
    assert actual[0].tolist() == [1, 0, 0]


def test_heads_without_gradient_and_second_derivatives():
    features, heads, leaves = draw(4, 6, torch.float64)
    for i in range(len(heads)):
        actual, expected = (
            torch.autograd.grad(f(features, heads, 2.0)[i].square().sum(), leaves[:1], create_graph=True)[0]
            for f in (apply_heads, separate)
        )
        assert distance(actual, expected) < 1e-13
        second = [torch.autograd.grad(x.square().sum(), leaves[:1])[0] for x in (actual, expected)]
        assert distance(*second) < 1e-12


def test_heads_are_computed_separately_under_autocast():
    features, heads, _ = draw(8, 5, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for actual, expected in zip(apply_heads(features, heads), separate(features, heads, 1.0), strict=True):
            assert actual.dtype == expected.dtype and torch.equal(actual, expected)
