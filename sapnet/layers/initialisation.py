"""Initialisation of weights."""

import torch
from torch import nn

from sapnet.layers.filtering import PixelDependentFilter


@torch.no_grad()
def preserve_variance(network: nn.Module) -> None:
    """Initialise all weights so that the output of a layer has the variance of its input, and the biases to zero.

    PyTorch's default initialisation reduces the standard deviation to 0.58 at every layer. In a network of residual
    blocks the branches then contribute very little at first, and the network stays near the identity for long. Weights
    that are all zero are kept, with their biases, because such heads are initialised to zero on purpose.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | PixelDependentFilter):
            if module.weight.is_meta or not module.weight.any():
                continue
            nn.init.normal_(module.weight, std=_fan_in(module) ** -0.5)
            bias = getattr(module, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)


def _fan_in(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear | PixelDependentFilter) -> int | float:
    if isinstance(module, nn.ConvTranspose2d):
        # Each output sums over every `stride`-th tap in each direction.
        return module.weight[:, 0].numel() / (module.stride[0] * module.stride[1])
    return module.weight[0].numel()
