import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from sapnet.layers.attention import ClusterAttention, FullAttention
from tests.reference import attention as reference


def numpy_of(linear):
    return linear.weight.detach().numpy(), linear.bias.detach().numpy()


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("normalisation", ["softmax", "elu"])
@pytest.mark.parametrize("cross", [True, False])
def test_equals_the_equations(masks, normalisation, cross):
    """Eq. 16, literally, for self- (source = receiver) and cross-attention."""
    torch.manual_seed(0)
    layer = ClusterAttention(6, masks, normalisation).double()
    grid = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    source = torch.randn(2, 4, 5, 6, dtype=torch.float64) if cross else grid
    points = torch.randn(2, 7, 6, dtype=torch.float64)
    out = layer(points, grid, source)
    for n in range(2):
        space = (layer.mask_space.weight[0].detach().numpy(), layer.mask_space.bias.item()) if masks else None
        expected = reference.cluster_attention(
            points[n].numpy(),
            grid[n].numpy(),
            source[n].numpy(),
            numpy_of(layer.f_q),
            numpy_of(layer.f_p),
            space,
            numpy_of(layer.mask_channels) if masks else None,
            reference.softmax if normalisation == "softmax" else reference.elu_normalised,
        )
        np.testing.assert_allclose(out[n].detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("normalisation", ["softmax", "elu"])
def test_gradients(normalisation):
    torch.manual_seed(0)
    layer = ClusterAttention(4, True, normalisation).double()
    inputs = [torch.randn(1, *shape, 4, dtype=torch.float64, requires_grad=True) for shape in [(3,), (2, 3), (2, 3)]]
    assert gradcheck(layer, inputs)
    parameters = list(layer.parameters())
    assert gradcheck(lambda *_: layer(*inputs), parameters)


def test_full_attention_equals_equation_8():
    torch.manual_seed(0)
    layer = FullAttention(6).double()
    points, source = (torch.randn(2, *shape, 6, dtype=torch.float64) for shape in [(5,), (3, 4)])
    tokens = source.flatten(1, 2)
    scores = layer.query(points) @ layer.key(tokens).mT / 3**0.5  # d_a = 3
    torch.testing.assert_close(layer(points, source, source), scores.softmax(-1) @ layer.value(tokens))


@given(st.integers(0, 2**31))
def test_pooled_information_does_not_depend_on_the_order_of_the_source(seed):
    """Step 1 is a sum over space: without M_S (a convolution), shuffling positions must change nothing."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(0)
    layer = ClusterAttention(6, masks=False).double()
    grid = torch.randn(1, 4, 4, 6, dtype=torch.float64, generator=generator)
    points = torch.randn(1, 3, 6, dtype=torch.float64, generator=generator)
    shuffled = grid.flatten(1, 2)[:, torch.randperm(16, generator=generator)].view_as(grid)
    torch.testing.assert_close(layer(points, grid, grid), layer(points, shuffled, shuffled))


def test_memory_grows_linearly_with_the_positions():
    """No HW x HW matrix: the largest tensor autograd keeps is no larger than the input or Q."""
    layer = ClusterAttention(8)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        grid = torch.randn(1, 64, 64, 8)
        layer(grid.flatten(1, 2), grid, grid)
    assert max(kept) <= grid.numel()
