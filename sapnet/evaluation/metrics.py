"""PSNR and SSIM as the deblurring literature computes them, each protocol under its own name.

SSIM depends on the protocol more than on the method: one 720p pair at 35 dB has an SSIM of 0.975, 0.964, 0.961 or
0.979. Only values of the same protocol are comparable. All protocols here use RGB, include the borders of the images
unless stated otherwise, clamp values to [0, 1] and round them to 8 bits as in a saved image.

The functions return one value per image. They take two images `[3, h, w]` or batches `[b, 3, h, w]`, float in [0, 1] or
uint8, on any device, and return float64 values on the CPU, a scalar or `[b]`. The value of an image that contains NaN
or infinity is NaN.

The classes are `torchmetrics` metrics: the mean over images of a function's values, not the metric of pooled errors.
"""

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor
from torchmetrics import Metric

Images = Float[Tensor, "*b 3 h w"] | UInt8[Tensor, "*b 3 h w"]
Values = Float64[Tensor, "*b"]

_PEAK = 255.0
_GAUSS = cv2.getGaussianKernel(11, 1.5).ravel()
# An 11-tap filter along an axis of 3 entries with repeated borders, as a 3x3 matrix.
_GAUSS_CHANNELS = np.array(
    [[_GAUSS[np.clip(np.arange(i - 5, i + 6), 0, 2) == j].sum() for j in range(3)] for i in range(3)]
)


def psnr(restored: Images, sharp: Images) -> Values:
    """Compute the peak signal-to-noise ratio in dB over all pixels and channels: MATLAB's `psnr` on uint8 RGB.

    Equal images give infinity.
    """
    return _per_image(lambda x, y: _psnr(float(np.mean((x - y) ** 2))), restored, sharp)


def ssim_matlab3d(restored: Images, sharp: Images) -> Values:
    """Compute the structural similarity of RGB images as volumes: MATLAB's `ssim` on an `h x w x 3` uint8 array.

    The window is an 11x11x11 Gaussian (sigma 1.5) over rows, columns and channels; borders are repeated, K is
    (0.01, 0.03), and the value is the mean of the whole map. SRN, MPRNet, Restormer, Stripformer and NAFNet report this
    SSIM.
    """

    def smooth(image: np.ndarray) -> np.ndarray:
        plane = cv2.sepFilter2D(image, -1, _GAUSS, _GAUSS, borderType=cv2.BORDER_REPLICATE)
        return plane @ _GAUSS_CHANNELS.T

    return _per_image(lambda x, y: _ssim_map(x, y, smooth, _PEAK).mean(), restored, sharp)


def ssim_gaussian(restored: Images, sharp: Images) -> Values:
    """Compute the structural similarity of Wang et al. (2004) on each channel of RGB and average the channels.

    The window is an 11x11 Gaussian (sigma 1.5) at all positions inside the image; the covariance is the population's.
    The authors of the GoPro set report this SSIM. It equals scikit-image's with `gaussian_weights=True,
    use_sample_covariance=False`.

    Raises:
        ValueError: An image has a side under 11 pixels.
    """

    def smooth(image: np.ndarray) -> np.ndarray:
        return _crop_border(cv2.sepFilter2D(image, -1, _GAUSS, _GAUSS), 11)

    return _per_image(lambda x, y: _ssim_map(x, y, smooth, _PEAK).mean(), restored, sharp)


def ssim_uniform(restored: Images, sharp: Images, data_range: float = 1.0) -> Values:
    """Compute the structural similarity in uniform 7x7 windows on each channel of RGB and average the channels.

    This is scikit-image's default, with the sample covariance and at all window positions inside the image.

    Args:
        restored: Restored images.
        sharp: Ground truth.
        data_range: Range of the values. scikit-image assumes 2.0 for float images, which gives images in [0, 1] higher
            values. Uformer's published values use 2.0.

    Raises:
        ValueError: An image has a side under 7 pixels.
    """

    def smooth(image: np.ndarray) -> np.ndarray:
        return _crop_border(cv2.blur(image, (7, 7)), 7)

    return _per_image(lambda x, y: _ssim_map(x, y, smooth, _PEAK * data_range, 49 / 48).mean(), restored, sharp)


class ImageMean(Metric):
    """Mean over images of given values; base class of the metrics that compute the values from images.

    The sum is accumulated in float32, as Lightning accumulates logged values. For a mean in double
    precision call `set_dtype(torch.float64)` before the first update.

    Attributes:
        total: Sum of the values.
        images: Number of images.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    total: Tensor
    images: Tensor

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        # Not the default dtype, which is bfloat16 under `trainer.precision=bf16-true`.
        self.add_state("total", torch.zeros((), dtype=torch.float32), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Float64[Tensor, ""] | Float64[Tensor, "b *columns"]) -> None:
        """Add images.

        Args:
            values: The value of one image, one value per image, or a row of values per image, whose columns are
                averaged separately.
        """
        values = torch.atleast_1d(values)
        # Published means were computed by NumPy, whose order of summation differs from PyTorch's.
        total = torch.as_tensor(values.cpu().numpy().sum(axis=0))
        self.total = self.total + total.to(self.total)
        self.images = self.images + len(values)

    def compute(self) -> Tensor:
        """Return the mean over all images."""
        return self.total / self.images


class PSNR(ImageMean):
    """Mean of `psnr` over images; infinite if the images of one pair are equal."""

    def update(self, restored: Images, sharp: Images) -> None:
        super().update(psnr(restored, sharp))


class SSIMMatlab3D(ImageMean):
    """Mean of `ssim_matlab3d` over images."""

    def update(self, restored: Images, sharp: Images) -> None:
        super().update(ssim_matlab3d(restored, sharp))


class SSIMGaussian(ImageMean):
    """Mean of `ssim_gaussian` over images."""

    def update(self, restored: Images, sharp: Images) -> None:
        super().update(ssim_gaussian(restored, sharp))


class SSIMUniform(ImageMean):
    """Mean of `ssim_uniform` over images.

    Args:
        data_range: As in `ssim_uniform`.
        kwargs: Arguments of `torchmetrics.Metric`.
    """

    def __init__(self, data_range: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.data_range = data_range

    def update(self, restored: Images, sharp: Images) -> None:
        super().update(ssim_uniform(restored, sharp, self.data_range))


def _per_image(metric: Callable[[np.ndarray, np.ndarray], float], restored: Images, sharp: Images) -> Values:
    if restored.shape != sharp.shape or restored.ndim not in (3, 4) or restored.shape[-3] != 3:
        raise ValueError(
            f"two RGB images or batches of one size are compared, not {[*restored.shape]} and {[*sharp.shape]}"
        )
    pairs = zip(_quantised(restored), _quantised(sharp), strict=True)
    values = [np.nan if x is None or y is None else metric(x, y) for x, y in pairs]
    return torch.tensor(values, dtype=torch.float64).reshape(restored.shape[:-3])


def _quantised(images: Images) -> Iterator[np.ndarray | None]:
    """Yield each image as float64 `[h, w, 3]` of integers from 0 to 255, or None if a value is not finite."""
    for image in images.detach().reshape(-1, *images.shape[-3:]):
        if image.dtype != torch.uint8:
            if not torch.isfinite(image).all():
                yield None
                continue
            image = image.float().clamp(0, 1).mul(255).round().to(torch.uint8)
        yield cv2.merge(list(image.cpu().numpy())).astype(np.float64)


def _psnr(error: float) -> float:
    return float(10 * np.log10(_PEAK**2 / error)) if error > 0 else float("inf")


def _ssim_map(
    x: np.ndarray, y: np.ndarray, smooth: Callable[[np.ndarray], np.ndarray], peak: float, unbiased: float = 1.0
) -> np.ndarray:
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_x, mean_y = smooth(x), smooth(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    # Only the sum of the variances is needed, which saves one filter pass.
    covariance = (smooth(x * y) - product) * unbiased
    variances = (smooth(x * x + y * y) - squares) * unbiased
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def _crop_border(image: np.ndarray, window: int) -> np.ndarray:
    height, width = image.shape[:2]
    if min(height, width) < window:
        raise ValueError(
            f"an image of {width}x{height} pixels is smaller than the {window}x{window} window of this SSIM"
        )
    edge = window // 2
    return image[edge : height - edge, edge : width - edge]
