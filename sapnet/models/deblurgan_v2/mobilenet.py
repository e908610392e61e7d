"""Feature pyramid over MobileNetV2 (Sandler et al., CVPR 2018)."""

from jaxtyping import Float
from torch import Tensor, nn

from sapnet.layers.image_statistics import ImageBatchNorm
from sapnet.models.deblurgan_v2.pyramid import FeaturePyramid

#: Expansion, channels, number of blocks and stride of the first one.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
#: First feature module of each part of the encoder, and the first that is not used.
PARTS = (0, 2, 4, 7, 11, 16)


class InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, and narrow; added to the input if the shapes are equal."""

    def __init__(self, before: int, after: int, stride: int, expansion: int):
        super().__init__()
        hidden = before * expansion
        layers = _layers(before, hidden, 1) if expansion > 1 else []
        layers += _layers(hidden, hidden, 3, stride, groups=hidden)
        self.conv = nn.Sequential(*layers, *_layers(hidden, after, 1)[:2])
        self.added = stride == 1 and before == after

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return x + self.conv(x) if self.added else self.conv(x)


class MobileNetPyramid(FeaturePyramid):
    """Pyramid over the first 16 of the 19 feature modules of MobileNetV2.

    The other three are in the authors' files; they are not used and not trained.

    Args:
        width: Channels of the pyramid.
    """

    #: Smallest side of an image whose features all have several pixels.
    minimum = 64

    def __init__(self, width: int = 128):
        super().__init__((16, 24, 32, 64, 160), width)
        features: list[nn.Module] = [nn.Sequential(*_layers(3, 32, 3, stride=2))]
        before = 32
        for expansion, after, number, stride in STAGES:
            for i in range(number):
                features.append(InvertedResidual(before, after, stride if i == 0 else 1, expansion))
                before = after
        features.append(nn.Sequential(*_layers(before, 1280, 1)))
        self.features = nn.Sequential(*features)
        self.features[PARTS[-1] :].requires_grad_(False)
        # The authors' files contain the used modules under both names.
        for i, part in enumerate(PARTS[:-1]):
            self.add_module(f"enc{i}", nn.Sequential(*features[part : PARTS[i + 1]]))


def _layers(before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return [conv, ImageBatchNorm(after), nn.ReLU6()]
