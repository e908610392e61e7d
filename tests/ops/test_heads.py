"""Heads computed together by the compiled kernel against one linear layer and one activation after another."""

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


def apart(features, heads, scale):
    return [activate(head.linear(features), head.activation, scale) for head in heads]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("channels", "rows"), [(24, 101), (5, 7), (1, 1), (32, 48), (70, 30)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-5), (torch.float64, 1e-13)])
def test_together_is_one_by_one(channels, rows, dtype, tolerance, threads):
    features, heads, leaves = draw(channels, rows, dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours, theirs = apply_heads(features, heads, 8.0), apart(features, heads, 8.0)
        grads = [torch.randn_like(x) for x in theirs]
        ours += torch.autograd.grad(ours, leaves, grads)
    finally:
        torch.set_num_threads(before)
    theirs += torch.autograd.grad(theirs, leaves, grads)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and distance(a, b) < tolerance


def test_large_and_small_logits():
    """tanh and exp are the kernel's own in float32: right in the tails, near 0, and with NaN and infinity."""
    logits = torch.tensor([0.0, -0.0, 1e-30, 1e-4, -0.6, 0.63, 5.0, -9.0, 50.0, -1e4, torch.inf, -torch.inf, torch.nan])
    linear = nn.Linear(1, 1)
    nn.init.ones_(linear.weight), nn.init.zeros_(linear.bias)
    for kind in ("tanh", "sigmoid"):
        (ours,) = apply_heads(logits[:, None], [Head(linear, kind)])
        exact = activate(logits.double(), kind)
        torch.testing.assert_close(ours[:, 0].double(), exact, rtol=1e-6, atol=1e-37, equal_nan=True)
    rows = nn.Linear(3, 3)
    nn.init.eye_(rows.weight), nn.init.zeros_(rows.bias)
    logits = torch.tensor([[900.0, 0.0, -900.0], [1.0, 2.0, 3.0], [torch.nan, 0.0, 1.0]])
    (ours,) = apply_heads(logits, [Head(rows, "softmax")])
    torch.testing.assert_close(ours, logits.softmax(-1), equal_nan=True)
    # Not a subnormal number, which would slow down every product that it enters.
    assert ours[0].tolist() == [1, 0, 0]


def test_a_head_without_gradient_and_a_second_derivative():
    features, heads, leaves = draw(4, 6, torch.float64)
    for i in range(len(heads)):
        ours, theirs = (
            torch.autograd.grad(f(features, heads, 2.0)[i].square().sum(), leaves[:1], create_graph=True)[0]
            for f in (apply_heads, apart)
        )
        assert distance(ours, theirs) < 1e-13
        second = [torch.autograd.grad(x.square().sum(), leaves[:1])[0] for x in (ours, theirs)]
        assert distance(*second) < 1e-12


def test_autocast_takes_the_heads_one_by_one():
    features, heads, _ = draw(8, 5, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for ours, theirs in zip(apply_heads(features, heads), apart(features, heads, 1.0), strict=True):
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
