import pytest
import torch
import torch.nn.functional as F

from sapnet.layers.canvas import MapConv


@pytest.mark.parametrize(("height", "width", "size"), [(7, 5, 3), (1, 1, 3), (2, 9, 5), (6, 6, 1)])
def test_map_conv_equals_conv2d(height, width, size):
    """Values and gradients, including the borders."""
    torch.manual_seed(0)
    layer = MapConv(4, size).double()
    canvas = torch.randn(2, height, width, 4, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(canvas.permute(0, 3, 1, 2), layer.weight, layer.bias, padding=size // 2).permute(0, 2, 3, 1)
    result = layer(canvas)
    torch.testing.assert_close(result, plain, rtol=1e-12, atol=1e-12)
    cotangent, inputs = torch.randn_like(plain), [canvas, *layer.parameters()]
    for actual, expected in zip(
        *(torch.autograd.grad(output, inputs, cotangent) for output in (result, plain)), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_map_conv_is_twice_differentiable():
    torch.manual_seed(0)
    layer = MapConv(2).double()
    canvas = torch.randn(1, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (canvas,))
