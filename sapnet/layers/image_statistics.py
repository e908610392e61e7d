"""Normalisation by the statistics of the image itself, for published networks that never use their running averages."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ImageInstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation without learned scale whose weights contain running averages.

    The averages are only stored, because the authors' files contain them; they are neither used nor updated.
    """

    def __init__(self, channels: int):
        super().__init__(channels, affine=False, track_running_stats=True)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise every channel of every image; the image has several pixels."""
        return F.instance_norm(input, eps=self.eps)


class ImageBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the current statistics in training and evaluation.

    In training these are the statistics of the batch, in evaluation those of every image by itself, so that a result
    does not depend on the other images of the batch. The running averages are neither used nor updated.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise every channel; the image has several pixels."""
        if self.training:
            return F.batch_norm(input, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return F.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)
