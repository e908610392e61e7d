"""The policy pi of Eq. 4: a small convolutional network that predicts where to sample."""

import math
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.sampling.context import StageContext

#: Inputs of the policy.
PolicyInputs = Literal["features_and_images", "features"]


class Policy(nn.Module):
    """Predicts logits of the probability map `G` from the previous stage's features and images.

    The images are the restored image of the previous stage and the blurred image, both scaled to [-1, 1], and their
    difference `10 |OP_{k-1} - B|`, which a network of this size is slow to learn by itself. The layers are a 1x1
    convolution of the features, two 3x3 convolutions with ReLU (the second one dilated) and a 3x3 convolution to a
    single map. They cost about 5400 multiply-adds per pixel at the default width. The last weights are initialised to
    zero and the last bias to `logit(share)`, so the initial map is flat. The inputs are detached: the policy learns
    from the reward alone, and the layers before it do not learn from the policy.

    In Eq. 4 the features are the only input; `inputs="features"` leaves the images out.

    A logit depends on 9x9 pixels of the images at `stride=1`. At `stride=2` it depends on about 22x22 pixels, enough
    for both ends of a blur of 10 pixels, at a quarter of the cost.

    Args:
        features: Channels of `StageContext.features`; 0 if the network provides none.
        share: Initial probability of every pixel, `(1 + b) / 4`.
        width: Channels of the hidden layers.
        stride: Image pixels per pixel of the hidden layers. Inputs are averaged and logits interpolated bilinearly.
        inputs: `features_and_images`, or `features` as in Eq. 4.

    Raises:
        UserError: The width or the stride is below 1, the inputs are unknown, or the network provides no features for
            `inputs="features"`.
    """

    def __init__(
        self,
        features: int,
        share: float = 0.25,
        width: int = 16,
        stride: int = 1,
        inputs: str = "features_and_images",
    ):
        super().__init__()
        if inputs not in get_args(PolicyInputs):
            raise UserError(f"sampling.policy_inputs={inputs}: use {' or '.join(get_args(PolicyInputs))}.")
        if inputs == "features" and not features:
            raise UserError(
                "sampling.policy_inputs=features: this network provides no features; use features_and_images."
            )
        if width < 1 or stride < 1:
            raise UserError(f"a policy of width {width} and stride {stride} is impossible: use positive numbers.")
        self.stride, self.inputs = stride, inputs
        # Three covers the receptive field of `first` without gaps; two is kept for existing full-resolution weights.
        dilation = 2 if stride == 1 else 3
        self.reduce = nn.Conv2d(features, width, 1) if features else None
        images = 9 if inputs == "features_and_images" else 0
        self.first = nn.Conv2d(images + (width if features else 0), width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.head = nn.Conv2d(width, 1, 3, padding=1)
        share = min(max(share, 1e-6), 1 - 1e-6)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(cast(Tensor, self.head.bias), math.log(share / (1 - share)))

    def forward(self, context: StageContext) -> Float[Tensor, "b h w"]:
        """Predict logits at the image's resolution; `G` is their sigmoid."""
        height, width = context.blurred.shape[-2:]
        size = math.ceil(height / self.stride), math.ceil(width / self.stride)
        parts = []
        if self.reduce is not None:
            features = cast(Tensor, context.features).detach().movedim(-1, 1)
            # Averaging before the 1x1 convolution is cheaper and equivalent.
            features = self.reduce(_downsample(features, max(features.shape[-2] // size[0], 1)))
            if features.shape[-2:] != size:
                features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
            parts.append(features)
        if self.inputs == "features_and_images":
            restored, blurred = context.restored.detach(), context.blurred.detach()
            images = torch.cat((2 * restored - 1, 2 * blurred - 1, 10 * (restored - blurred).abs()), dim=1)
            parts.append(_downsample(images, self.stride))
        x = torch.cat(parts, dim=1)
        logits = self.head(self.second(self.first(x).relu()).relu())
        if self.stride > 1:
            logits = F.interpolate(logits, scale_factor=self.stride, mode="bilinear", align_corners=False)
        return logits[:, 0, :height, :width]


def _downsample(image: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h2 w2"]:
    # Sizes are rounded up; incomplete cells at the border average the pixels that they contain.
    return image if factor == 1 else F.avg_pool2d(image, factor, ceil_mode=True, count_include_pad=False)
