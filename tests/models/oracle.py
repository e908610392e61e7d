"""Outputs of the authors' code for weights that follow from the names of the parameters, without their weights.

`fill` computes the weights of a network from its state dict. With these weights and the image of `Oracle.image`, the
public code of each system was run in float64 on a CPU: `ORACLES` lists statistics of its output, before any clamping
that is not part of the network.
"""

import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import hydra
import numpy as np
import torch
from torch import Tensor, nn

from sapnet.configs import CONFIG_DIR, compose_network


@dataclass(frozen=True)
class Oracle:
    """What is known of a published system.

    Attributes:
        network: Name of the config, and overrides of its settings.
        gain: Standard deviation of a layer's output relative to its input, for `fill`.
        keys: Number of entries of the state dict.
        manifest: `manifest` of the state dict.
        size: Height and width of the image.
        mean: Mean of the output, in the authors' range of values.
        std: Standard deviation of the output over all values.
        inner: Value of the first channel at row 10 and column 20.
        corner: Last value of the last channel.
        parameters: Number of parameters.
        gmacs: Multiply-adds in 1e9 for an image of 256x256 after padding.
        black: Value of black in the authors' range.
        white: Value of white in the authors' range.
        counted: Side of the image whose padded size is 256x256.
    """

    network: str
    gain: float
    keys: int
    manifest: str
    size: int
    mean: float
    std: float
    inner: float
    corner: float
    parameters: int
    gmacs: float
    black: float = 0
    white: float = 1
    counted: int = 256

    @property
    def config(self) -> str:
        """Name of the config."""
        return self.network.split()[0]

    def image(self) -> Tensor:
        """Return the blurred image `[1, 3, size, size]` in [0, 1], float64."""
        return torch.from_numpy(np.random.RandomState(0).rand(1, 3, self.size, self.size))

    def build(self, *overrides: str) -> nn.Module:
        """Build the network of the config, in evaluation mode."""
        name, *settings = self.network.split()
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            config = hydra.compose("train", [f"network={name}", *settings, *overrides])
        return hydra.utils.instantiate(compose_network(config)).eval()


#: The public code's results. DeblurGAN and DeblurGAN-v2 ran with every normalisation on the statistics of the image and
#: without dropout. The two rows of Uformer-B differ only in the shift of one layer's windows.
ORACLES = (
    Oracle("mimo_unet", 0.5, 244, "117b37b6cf56d5c0", 64, 0.547026599, 0.306938235, 0.609213152, 0.716390942,
           6_807_171, 63.73),
    Oracle("mimo_unet_plus", 0.5, 532, "02891ba8986b0dc5", 64, 0.747807269, 0.364539970, 0.951648506, 0.734915595,
           16_107_651, 150.71),
    Oracle("mprnet", 0.5, 316, "dda0fc2b15626c2b", 64, 0.504021750, 0.312570967, 0.444258105, 0.788813308,
           20_127_073, 759.41),
    Oracle("restormer", 1, 494, "05c876ff3db06749", 64, -0.141814478, 3.084200381, -3.433089971, 1.963136191,
           26_126_644, 154.88),
    Oracle("uformer_b network.bottleneck_shift=0", 1, 759, "7667f6f16bde2ce9", 128, 0.950109161, 3.277910918,
           0.314138621, 1.855210787, 50_880_946, 86.57),
    Oracle("uformer_b network.bottleneck_shift=4", 1, 759, "7667f6f16bde2ce9", 128, 0.950289269, 3.277854474,
           0.308454813, 1.847825270, 50_880_946, 86.57),
    Oracle("mscnn network.smoothed=false", 0.5, 244, "f59ea1139618bb59", 64, 135.526349225, 16.315607847,
           118.256820639, 121.014385829, 11_721_321, 335.94, white=255),
    Oracle("deblurgan", 1, 117, "37219b221c02cbb8", 64, -0.051222554, 0.680860314, 0.288824148, 0.004510547,
           11_378_179, 49.55, black=-1),
    Oracle("deblurgan_v2_mobilenet", 1, 622, "7b28513824389e9d", 128, -0.009927793, 0.641446976, 0.167482084,
           0.691633170, 3_312_707, 2.71, black=-1, counted=255),
    Oracle("deblurgan_v2_inception", 1, 2384, "dac6ef743e89e85e", 128, 0.041450156, 0.643822140, 0.368878516,
           0.565812140, 60_929_291, 17.52, black=-1, counted=255),
)  # fmt: skip


def available() -> list[Oracle]:
    """Return the oracles whose network has a config."""
    return [oracle for oracle in ORACLES if Path(CONFIG_DIR, "network", f"{oracle.config}.yaml").is_file()]


def manifest(network: nn.Module) -> str:
    """Return 16 hexadecimal digits of a hash of all names and shapes in the state dict."""
    lines = sorted(f"{key} {'x'.join(map(str, value.shape))}" for key, value in network.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@torch.no_grad()
def fill(network: nn.Module, gain: float) -> nn.Module:
    """Fill the floating tensors of the state dict with values that follow from their names; return the network."""
    for key, value in network.state_dict().items():
        # DeblurGAN-v2 stores its backbone twice; these names are aliases.
        if value.is_floating_point() and not key.startswith("fpn.enc"):
            filled = _values(key, tuple(value.shape), gain)
            value.copy_(torch.from_numpy(np.broadcast_to(filled, value.shape).copy()))
    return network


def _values(key: str, shape: tuple[int, ...], gain: float) -> np.ndarray | float:
    rng = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        return 1.0
    if key.endswith("running_mean"):
        return 0.1 * rng.standard_normal(shape)
    if len(shape) >= 2 and not key.endswith("temperature"):
        return rng.standard_normal(shape) * gain * math.sqrt(1 / math.prod(shape[1:]))
    if key.endswith("bias"):
        return 0.1 * rng.standard_normal(shape)
    if shape == (1,):
        return 0.25
    return 1 + 0.1 * rng.standard_normal(shape)
