"""Feature pyramid over Inception-ResNet-v2 (Szegedy et al., AAAI 2017)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.layers.image_statistics import ImageBatchNorm
from sapnet.models.deblurgan_v2.pyramid import FeaturePyramid, Margins

#: Mirrored pixels that complete the features of each part of the encoder, whose convolutions have no padding.
MARGINS: tuple[Margins, ...] = ((0, 1, 0, 1), (1, 1, 1, 1), (1, 2, 1, 2), (1, 1, 1, 1), (1, 1, 1, 1))
#: Modules of the encoder that belong to each part of the pyramid.
PARTS = (
    ("conv2d_1a",),
    ("conv2d_2a", "conv2d_2b", "maxpool_3a"),
    ("conv2d_3b", "conv2d_4a", "maxpool_5a"),
    ("mixed_5b", "repeat", "mixed_6a"),
    ("repeat_1", "mixed_7a"),
)
#: Modules that are in the authors' files but not used.
UNUSED = ("repeat_2", "block8", "conv2d_7b", "last_linear")
Size = int | tuple[int, int]


class ConvLayer(nn.Module):
    """A normalised convolution and ReLU."""

    def __init__(self, before: int, after: int, size: Size, stride: int = 1, padding: Size = 0):
        super().__init__()
        self.conv = nn.Conv2d(before, after, size, stride, padding, bias=False)
        self.bn = ImageBatchNorm(after, eps=1e-3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.bn(self.conv(x)).relu()


class Branches(nn.Module):
    """Branches over the same input, whose outputs are concatenated."""

    def __init__(self, *branches: Sequence[nn.Module]):
        super().__init__()
        self.names = [f"branch{i}" for i in range(len(branches))]
        for name, layers in zip(self.names, branches, strict=True):
            self.add_module(name, layers[0] if len(layers) == 1 else nn.Sequential(*layers))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return torch.cat([self.get_submodule(name)(x) for name in self.names], dim=1)


class ResidualBranches(Branches):
    """Branches whose output is scaled and added to the input, and ReLU."""

    def __init__(self, channels: int, concatenated: int, scale: float, *branches: Sequence[nn.Module]):
        super().__init__(*branches)
        self.conv2d, self.scale = nn.Conv2d(concatenated, channels, 1), scale

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return torch.relu(self.scale * self.conv2d(super().forward(x)) + x)


class InceptionResNet(nn.Module):
    """The encoder with the names of the `pretrainedmodels` package; `InceptionPyramid` runs its modules."""

    def __init__(self):
        super().__init__()
        self.conv2d_1a = ConvLayer(3, 32, 3, stride=2)
        self.conv2d_2a, self.conv2d_2b = ConvLayer(32, 32, 3), ConvLayer(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b, self.conv2d_4a = ConvLayer(64, 80, 1), ConvLayer(80, 192, 3)
        self.maxpool_5a = nn.MaxPool2d(3, stride=2)
        pooled = (nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), ConvLayer(192, 64, 1))
        self.mixed_5b = Branches(
            _chain(192, (96, 1)), _chain(192, (48, 1), (64, 5)), _chain(192, (64, 1), (96, 3), (96, 3)), pooled
        )
        self.repeat = nn.Sequential(*(_block35() for _ in range(10)))
        first, last = _chain(320, (256, 1), (256, 3)), ConvLayer(256, 384, 3, stride=2)
        self.mixed_6a = Branches([ConvLayer(320, 384, 3, stride=2)], [*first, last], [nn.MaxPool2d(3, stride=2)])
        self.repeat_1 = nn.Sequential(*(_block17() for _ in range(20)))
        self.mixed_7a = Branches(
            [*_chain(1088, (256, 1)), ConvLayer(256, 384, 3, stride=2)],
            [*_chain(1088, (256, 1)), ConvLayer(256, 288, 3, stride=2)],
            [*_chain(1088, (256, 1), (288, 3)), ConvLayer(288, 320, 3, stride=2)],
            [nn.MaxPool2d(3, stride=2)],
        )
        self.repeat_2, self.block8 = nn.Sequential(*(_block8() for _ in range(9))), _block8()
        self.conv2d_7b, self.last_linear = ConvLayer(2080, 1536, 1), nn.Linear(1536, 1000)


class InceptionPyramid(FeaturePyramid):
    """Pyramid over Inception-ResNet-v2 without its last blocks.

    Those and the classifier are in the authors' files; they are not used and not trained.

    Args:
        width: Channels of the pyramid.
    """

    #: Smallest side of an image whose features can all be mirrored.
    minimum = 128

    def __init__(self, width: int = 256):
        super().__init__((32, 64, 192, 1088, 2080), width, MARGINS)
        self.inception = InceptionResNet()
        for name in UNUSED:
            self.inception.get_submodule(name).requires_grad_(False)
        # The authors' files contain the used modules under both names.
        for i, names in enumerate(PARTS):
            modules = [self.inception.get_submodule(name) for name in names]
            self.add_module(f"enc{i}", modules[0] if len(modules) == 1 else nn.Sequential(*modules))


def _chain(before: int, *layers: tuple[int, Size]) -> list[nn.Module]:
    # Convolutions that keep the size, given the channels and the kernel of each.
    modules: list[nn.Module] = []
    for after, size in layers:
        padding = size // 2 if isinstance(size, int) else (size[0] // 2, size[1] // 2)
        modules.append(ConvLayer(before, after, size, padding=padding))
        before = after
    return modules


def _block35() -> ResidualBranches:
    branches = _chain(320, (32, 1)), _chain(320, (32, 1), (32, 3)), _chain(320, (32, 1), (48, 3), (64, 3))
    return ResidualBranches(320, 128, 0.17, *branches)


def _block17() -> ResidualBranches:
    branches = _chain(1088, (192, 1)), _chain(1088, (128, 1), (160, (1, 7)), (192, (7, 1)))
    return ResidualBranches(1088, 384, 0.10, *branches)


def _block8() -> ResidualBranches:
    branches = _chain(2080, (192, 1)), _chain(2080, (192, 1), (224, (1, 3)), (256, (3, 1)))
    return ResidualBranches(2080, 448, 0.20, *branches)
