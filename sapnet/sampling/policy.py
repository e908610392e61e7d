"""The policy pi of Eq. 4: a few light convolutions that say how hard each pixel will be to restore."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.sampling.state import State


class Policy(nn.Module):
    """Logits of the probability map `G` from the previous stage's features, its restored image and the blurred image.

    A 1x1 convolution of the features, two 3x3 with ReLU (the second dilated by 2) and one 3x3 to a single map; about
    5000 multiply-adds a pixel at the default width. The last weights start at zero and the last bias at
    `logit(share)`, so that it starts as a flat map of the wanted share. Inputs are detached: the policy learns from the
    reward alone, and what feeds it does not learn from the policy.

    Args:
        features: Channels of `State.features`; 0 where a network has none to give.
        share: Probability of every pixel at the start, `(1 + b) / 4`.
        width: Channels of the hidden layers.
    """

    def __init__(self, features: int, share: float = 0.25, width: int = 16):
        super().__init__()
        self.reduce = nn.Conv2d(features, width, 1) if features else None
        self.first = nn.Conv2d(6 + (width if features else 0), width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.head = nn.Conv2d(width, 1, 3, padding=1)
        share = min(max(share, 1e-6), 1 - 1e-6)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, math.log(share / (1 - share)))

    def forward(self, state: State) -> Float[Tensor, "b h w"]:
        """Logits at the image's resolution; `G` is their sigmoid."""
        x = torch.cat((state.restored, state.blurred), dim=1).detach()
        if self.reduce is not None:
            features = self.reduce(state.features.detach().movedim(-1, 1))
            if features.shape[-2:] != x.shape[-2:]:
                features = F.interpolate(features, size=x.shape[-2:], mode="bilinear", align_corners=False)
            x = torch.cat((features, x), dim=1)
        return self.head(self.second(self.first(x).relu()).relu())[:, 0]
