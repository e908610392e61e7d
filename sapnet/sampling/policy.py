"""The policy pi of Eq. 4: a few light convolutions that say how hard each pixel will be to restore."""

import math
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.sampling.state import State

#: What the policy reads.
Inputs = Literal["features_and_images", "features"]


class Policy(nn.Module):
    """Logits of the probability map `G` from the previous stage's features, its restored image and the blurred image.

    Both images are read in [-1, 1], and beside them what the stages so far have changed, `10 |OP_{k-1} - B|`, which so
    small a network finds late by itself. A 1x1 convolution of the features, two 3x3 with ReLU (the second dilated) and
    one 3x3 to a single map; about 5400 multiply-adds a pixel at the default width. The last weights start at zero and
    the last bias at `logit(share)`, so that it starts as a flat map of the wanted share. Inputs are detached: the
    policy learns from the reward alone, and what feeds it does not learn from the policy.

    Eq. 4 has the features alone as the policy's input; `inputs="features"` leaves the images out.

    A logit depends on 9x9 pixels of the images at `stride=1`. At `stride=2` it depends on about 22x22, so that both
    ends of a blur of 10 pixels are seen, at a quarter of the cost.

    Args:
        features: Channels of `State.features`; 0 where a network has none to give.
        share: Probability of every pixel at the start, `(1 + b) / 4`.
        width: Channels of the hidden layers.
        stride: Image pixels per pixel of the hidden layers: inputs are averaged, logits interpolated bilinearly.
        inputs: `features_and_images`, or `features` as in Eq. 4.

    Raises:
        UserError: If the width or the stride is below 1, the inputs are unknown, or there are no features to be them.
    """

    def __init__(
        self,
        features: int,
        share: float = 0.25,
        width: int = 16,
        stride: int = 1,
        inputs: Inputs = "features_and_images",
    ):
        super().__init__()
        if inputs not in get_args(Inputs):
            raise UserError(f"sampling.policy_inputs={inputs}: use {' or '.join(get_args(Inputs))}.")
        if inputs == "features" and not features:
            raise UserError(
                "sampling.policy_inputs=features: this network gives its policy no features; use features_and_images."
            )
        if width < 1 or stride < 1:
            raise UserError(f"a policy of width {width} and stride {stride} is impossible: use numbers from 1 up.")
        self.stride, self.inputs = stride, inputs
        # Three fits the field of `first` without gaps; two is what networks at full resolution were trained with.
        dilation = 2 if stride == 1 else 3
        self.reduce = nn.Conv2d(features, width, 1) if features else None
        images = 9 if inputs == "features_and_images" else 0
        self.first = nn.Conv2d(images + (width if features else 0), width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.head = nn.Conv2d(width, 1, 3, padding=1)
        share = min(max(share, 1e-6), 1 - 1e-6)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(cast(Tensor, self.head.bias), math.log(share / (1 - share)))

    def forward(self, state: State) -> Float[Tensor, "b h w"]:
        """Logits at the image's resolution; `G` is their sigmoid."""
        height, width = state.blurred.shape[-2:]
        size = math.ceil(height / self.stride), math.ceil(width / self.stride)
        parts = []
        if self.reduce is not None:
            features = cast(Tensor, state.features).detach().movedim(-1, 1)
            # Averaged before the convolution, which costs less and gives the same.
            features = self.reduce(_shrink(features, max(features.shape[-2] // size[0], 1)))
            if features.shape[-2:] != size:
                features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
            parts.append(features)
        if self.inputs == "features_and_images":
            restored, blurred = state.restored.detach(), state.blurred.detach()
            images = torch.cat((2 * restored - 1, 2 * blurred - 1, 10 * (restored - blurred).abs()), dim=1)
            parts.append(_shrink(images, self.stride))
        x = torch.cat(parts, dim=1)
        logits = self.head(self.second(self.first(x).relu()).relu())
        if self.stride > 1:
            logits = F.interpolate(logits, scale_factor=self.stride, mode="bilinear", align_corners=False)
        return logits[:, 0, :height, :width]


def _shrink(image: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h2 w2"]:
    # Sizes that the factor does not divide are rounded up; the last cells average what there is.
    return image if factor == 1 else F.avg_pool2d(image, factor, ceil_mode=True, count_include_pad=False)
