import pytest
import torch
import torch.nn.functional as F

from sapnet.layers.filtering import PixelDependentFilter


@pytest.mark.parametrize("switches", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("depthwise", [False, True])
def test_initialised_as_a_plain_convolution(switches, depthwise):
    """V = 1 and offsets = 0 at initialisation for all options."""
    torch.manual_seed(0)
    layer = PixelDependentFilter(5, 5, *switches, depthwise=depthwise)
    canvas = torch.randn(2, 7, 9, 5)
    expected = F.conv2d(canvas.movedim(-1, 1), layer.weight, padding=2, groups=5 if depthwise else 1)
    out = layer(canvas, canvas.flatten(1, 2))
    torch.testing.assert_close(out.view(2, 7, 9, 5), expected.movedim(1, -1), rtol=1e-4, atol=1e-5)


def test_offsets_are_bounded():
    torch.manual_seed(0)
    layer = PixelDependentFilter(4, 3, max_offset=2.0)
    torch.nn.init.normal_(layer.f_off.weight, std=100.0)
    canvas = torch.randn(1, 6, 6, 4)
    _, offsets = layer.predict(canvas.flatten(1, 2))
    assert offsets.shape == (1, 36, 9, 2)
    assert offsets.abs().max() <= 2.0 and offsets.abs().max() > 1.9


def test_zero_initialised_heads_receive_gradients():
    """Without gradients V and the offsets would never change."""
    torch.manual_seed(0)
    layer = PixelDependentFilter(4)
    canvas = torch.randn(1, 8, 8, 4)
    layer(canvas, canvas.flatten(1, 2)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in layer.parameters())
