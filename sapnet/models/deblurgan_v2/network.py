"""The generator of DeblurGAN-v2, with the parameter names of the authors' weights."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.models.deblurgan_v2.inception import InceptionPyramid
from sapnet.models.deblurgan_v2.mobilenet import MobileNetPyramid
from sapnet.models.deblurgan_v2.pyramid import convolved_and_normalised, enlarged
from sapnet.models.inputs import InputRequirements


class Head(nn.Module):
    """Two 3x3 convolutions with ReLU."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.block0 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.block1 = nn.Conv2d(after, after, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        return self.block1(self.block0(x).relu()).relu()


class DeblurGANv2(nn.Module):
    """Feature pyramid and heads, whose output is added to the image and clamped.

    Only the generator is here: the authors train it with adversarial and perceptual losses and start from ImageNet
    weights, `sapnet train` with the pixelwise loss of `loss` and from random weights. As in the authors' test, all
    normalisations use the statistics of the image.

    Args:
        pyramid: The feature pyramid; each head has half of its width.
    """

    def __init__(self, pyramid: InceptionPyramid | MobileNetPyramid):
        super().__init__()
        width = pyramid.width // 2
        self.fpn = pyramid
        self.head1, self.head2, self.head3, self.head4 = (Head(2 * width, width) for _ in range(4))
        self.smooth = convolved_and_normalised(4 * width, width)
        self.smooth2 = convolved_and_normalised(width, width // 2)
        self.final = nn.Conv2d(width // 2, 3, 3, padding=1)
        #: The authors' test enlarges sizes that are a multiple already, their training does not.
        self.requirements = InputRequirements(32, "zeros", always_padded=True, minimum=pyramid.minimum, black=-1)

    def forward(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].

        Returns:
            The restored image in [0, 1].
        """
        requirements = replace(self.requirements, always_padded=False) if self.training else self.requirements
        return requirements.run(self.restore, blurred)

    def restore(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images in [-1, 1] that meet the requirements."""
        finest, *maps = self.fpn(blurred)
        heads = (self.head1, self.head2, self.head3, self.head4)
        features = [enlarged(head(x), 2**i) for i, (head, x) in enumerate(zip(heads, maps, strict=True))]
        x = self.smooth(torch.cat(features[::-1], dim=1))
        x = self.smooth2(enlarged(x, 2) + finest)
        return [torch.clamp(torch.tanh(self.final(enlarged(x, 2))) + blurred, -1, 1)]
