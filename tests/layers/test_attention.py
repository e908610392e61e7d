import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from sapnet.errors import UserError
from sapnet.layers.attention import ClusterAttention, FullAttention
from sapnet.layers.windows import PointWindows, cover
from tests.reference import attention as reference

NORMALISE = {
    "softmax": reference.softmax,
    "elu_normalised": reference.elu_normalised,
    "elu_unnormalised": reference.elu_unnormalised,
}


def numpy_of(linear):
    return linear.weight.detach().numpy(), linear.bias.detach().numpy()


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("normalisation", NORMALISE)
@pytest.mark.parametrize("cross", [True, False])
def test_equals_the_equations(masks, normalisation, cross):
    """Literal Eq. 16 for self-attention (source = receiver) and cross-attention."""
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
            NORMALISE[normalisation],
        )
        np.testing.assert_allclose(out[n].detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("normalisation", NORMALISE)
def test_gradients(normalisation):
    torch.manual_seed(0)
    layer = ClusterAttention(4, True, normalisation).double()
    inputs = [torch.randn(1, *shape, 4, dtype=torch.float64, requires_grad=True) for shape in [(3,), (2, 3), (2, 3)]]
    assert gradcheck(layer, inputs)
    parameters = list(layer.parameters())
    assert gradcheck(lambda *_: layer(*inputs), parameters)


def test_unnormalised_elu_weights_do_not_sum_to_one():
    """The paper states that elu does not allow weights over all positions implicitly."""
    torch.manual_seed(0)
    layer = ClusterAttention(6, False, "elu_unnormalised")
    weights = layer._normalise(torch.randn(2, 3, 20))
    assert (weights >= 0).all() and (weights.sum(-1) - 1).abs().min() > 1e-3
    torch.testing.assert_close(layer._normalise(torch.zeros(1, 20)), torch.full((1, 20), 0.05))


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(UserError, match=r"normalisation=relu: use one of softmax, elu_normalised"):
        ClusterAttention(6, normalisation="relu")


def test_full_attention_equals_equation_8():
    torch.manual_seed(0)
    layer = FullAttention(6).double()
    points, source = (torch.randn(2, *shape, 6, dtype=torch.float64) for shape in [(5,), (3, 4)])
    tokens = source.flatten(1, 2)
    scores = layer.query(points) @ layer.key(tokens).mT / 3**0.5  # d_a = 3
    torch.testing.assert_close(layer(points, source, source), scores.softmax(-1) @ layer.value(tokens))


@given(st.integers(0, 2**31))
def test_result_does_not_depend_on_the_order_of_the_source(seed):
    """Step 1 is a sum over space; without the convolution of M_S, the order of positions has no influence."""
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(0)
    layer = ClusterAttention(6, masks=False).double()
    grid = torch.randn(1, 4, 4, 6, dtype=torch.float64, generator=rng)
    points = torch.randn(1, 3, 6, dtype=torch.float64, generator=rng)
    shuffled = grid.flatten(1, 2)[:, torch.randperm(16, generator=rng)].view_as(grid)
    torch.testing.assert_close(layer(points, grid, grid), layer(points, shuffled, shuffled))


def test_memory_grows_linearly_with_the_positions():
    """Without an HW x HW matrix, the largest tensor saved for the backward pass is no larger than the input or Q."""
    layer = ClusterAttention(8)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        grid = torch.randn(1, 64, 64, 8)
        layer(grid.flatten(1, 2), grid, grid)
    assert max(kept) <= grid.numel()


def weights_of(layer):
    space = None
    if layer.mask_space is not None:
        space = (layer.mask_space.weight[0].detach().numpy(), layer.mask_space.bias.item())
    channels = None if layer.mask_channels is None else numpy_of(layer.mask_channels)
    return numpy_of(layer.f_q), numpy_of(layer.f_p), space, channels, NORMALISE[layer.normalisation]


@pytest.mark.parametrize(
    ("masks", "normalisation"),
    [(True, "softmax"), (False, "softmax"), (True, "elu_normalised"), (True, "elu_unnormalised")],
)
@pytest.mark.parametrize("size", [(7, 9), (8, 12), (5, 3)])
@pytest.mark.parametrize("cross", [True, False])
def test_windows_equal_the_equations_with_the_nearest_window(masks, normalisation, size, cross):
    """Points on a canvas of twice the size of the grid, with unused slots; windows that tile the grid and others."""
    torch.manual_seed(0)
    layer = ClusterAttention(4, masks, normalisation).double()
    (height, width), window = size, (4, 4)
    grid = torch.randn(2, height, width, 4, dtype=torch.float64)
    source = torch.randn_like(grid) if cross else grid
    canvas = torch.randn(2, 4 * height * width, 4, dtype=torch.float64)
    points = torch.stack([torch.randperm(4 * height * width)[:11].sort().values for _ in range(2)])
    points[1, 9:] = -1
    values = canvas.gather(1, points.clamp(min=0)[..., None].expand(-1, -1, 4))
    # The canvas has one position per pixel of the patch.
    windows = cover(2 * height, 2 * width, (2 * window[0], 2 * window[1]), 2)
    out = layer(values, grid, source, PointWindows(windows, (2, 2 * height, 2 * width), points))
    real = min(window[0], height), min(window[1], width)
    starts = tuple(tuple(s // 2 for s in places) for places in windows.starts)
    for n in range(2):
        used = points[n][points[n] >= 0]
        # Cells start at positions of the grid, so a canvas position belongs to the cell of its grid position.
        places = [(p // (2 * width) // 2 + 0.5, p % (2 * width) // 2 + 0.5) for p in used.tolist()]
        expected = reference.windowed_cluster_attention(
            values[n, : len(used)].numpy(), places, grid[n].numpy(), source[n].numpy(), real, starts, *weights_of(layer)
        )
        np.testing.assert_allclose(out[n, : len(used)].detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", [*NORMALISE, "full"])
def test_windows_that_tile_a_grid_equal_separate_windows(layer):
    """No global information leaks from one window to another."""
    torch.manual_seed(0)
    layer = FullAttention(6) if layer == "full" else ClusterAttention(6, True, layer)
    layer = layer.double()
    if isinstance(layer, ClusterAttention):
        # M_S is a convolution and not limited to windows, so it is reduced to its middle tap.
        with torch.no_grad():
            layer.mask_space.weight *= torch.eye(3)[1] * torch.eye(3)[1][:, None]
    grid, source = (torch.randn(2, 8, 9, 6, dtype=torch.float64) for _ in range(2))
    windows = PointWindows(cover(8, 9, (4, 3), 1), (2, 8, 9), None)
    out = layer(grid.flatten(1, 2), grid, source, windows).view_as(grid)
    for y in (0, 4):
        for x in (0, 3, 6):
            part, pooled = (each[:, y : y + 4, x : x + 3] for each in (grid, source))
            alone = layer(part.flatten(1, 2), part, pooled).view_as(part)
            torch.testing.assert_close(out[:, y : y + 4, x : x + 3], alone, rtol=1e-12, atol=1e-12)


def test_gradients_with_windows():
    torch.manual_seed(0)
    layer = ClusterAttention(2).double()
    inputs = [torch.randn(1, *shape, 2, dtype=torch.float64, requires_grad=True) for shape in [(15,), (3, 5), (3, 5)]]
    windows = PointWindows(cover(3, 5, (3, 2), 1), (1, 3, 5), None)
    assert gradcheck(lambda *x: layer(*x, windows), inputs)
