"""How the weights of a network start."""

import torch
from torch import nn

from sapnet.layers.filtering import PixelDependentFilter


@torch.no_grad()
def preserve_variance(network: nn.Module) -> None:
    """Draw all weights so that a layer's output has the variance of its input, and set the biases to zero.

    PyTorch's own start shrinks a signal to 0.58 of its deviation at every layer, so that in a network of residual
    blocks the branches begin with next to nothing and the network stays at the identity for long. Weights that are
    zero stay zero, with their biases: heads whose layers chose to start that way.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | PixelDependentFilter):
            if module.weight.is_meta or not module.weight.any():
                continue
            nn.init.normal_(module.weight, std=_fan_in(module) ** -0.5)
            bias = getattr(module, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)


def _fan_in(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear | PixelDependentFilter) -> float:
    if isinstance(module, nn.ConvTranspose2d):
        # A result sums over every `stride`-th tap in each direction.
        return module.weight[:, 0].numel() / (module.stride[0] * module.stride[1])
    return module.weight[0].numel()
