import pytest
import torch
import torch.nn.functional as F

from sapnet.layers.canvas import MapConv


@pytest.mark.parametrize(("height", "width", "size"), [(7, 5, 3), (1, 1, 3), (2, 9, 5), (6, 6, 1)])
def test_a_map_is_that_of_a_plain_convolution(height, width, size):
    """Values and gradients: a tap that is added at the wrong place would show at the borders first."""
    torch.manual_seed(0)
    layer = MapConv(4, size).double()
    canvas = torch.randn(2, height, width, 4, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(canvas.permute(0, 3, 1, 2), layer.weight, layer.bias, padding=size // 2).permute(0, 2, 3, 1)
    found = layer(canvas)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
    cotangent, wanted = torch.randn_like(plain), [canvas, *layer.parameters()]
    for ours, theirs in zip(
        *(torch.autograd.grad(result, wanted, cotangent) for result in (found, plain)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_map_is_twice_differentiable():
    torch.manual_seed(0)
    layer = MapConv(2).double()
    canvas = torch.randn(1, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (canvas,))
