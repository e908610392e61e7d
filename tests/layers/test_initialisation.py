import pytest
import torch
from torch import nn

from sapnet.layers.canvas import Conv, Up
from sapnet.layers.filtering import PixelDependentFilter
from sapnet.layers.initialisation import preserve_variance
from sapnet.models.sapnet import SAPNet


@pytest.mark.parametrize("layer", [Conv(24, 32), Up(24, 32), nn.Linear(24, 32), PixelDependentFilter(24)])
def test_layers_preserve_the_variance_of_their_input(layer):
    torch.manual_seed(0)
    preserve_variance(layer)
    canvas = torch.randn(2, 24, 24, 24)
    values = (canvas, canvas.flatten(1, 2)) if isinstance(layer, PixelDependentFilter) else (canvas,)
    out = layer(*values).view(2, *((48, 48) if isinstance(layer, Up) else (24, 24)), -1)
    assert out[:, 4:-4, 4:-4].std().item() == pytest.approx(1, abs=0.15)


def test_zero_initialised_heads_stay_zero():
    """The initial network is the identity, and its filters are plain convolutions."""
    torch.manual_seed(0)
    network = SAPNet(stem=4, channels=(4, 8, 8))
    filters = [module for module in network.modules() if isinstance(module, PixelDependentFilter)]
    assert filters and all(not f.f_off.weight.any() and not f.f_ker.weight.any() for f in filters)
    assert all((f.f_ker.bias == 1).all() and (f.f_off.bias == 0).all() for f in filters)
    blurred = torch.rand(1, 3, 32, 32)
    assert all(torch.equal(output, blurred) for output in network(blurred))


def test_initial_weights_do_not_depend_on_later_stages():
    """Studies compare uniform and non-uniform networks with the same first stage."""
    weights = []
    for sampled, stages in ((False, 2), (True, 2), (True, 3)):
        torch.manual_seed(0)
        hierarchy = SAPNet(stem=4, channels=(4, 8, 8), sampled=sampled, stages=stages)
        weights.append([p.detach().clone() for p in hierarchy.stages[0].parameters()])
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*weights, strict=True))
