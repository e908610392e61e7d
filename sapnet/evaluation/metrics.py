"""PSNR and SSIM as the deblurring literature computes them, each protocol under its own name.

Two protocols differ by more than two methods do (one 720p pair at 35 dB has SSIM 0.975, 0.964, 0.961 or 0.979), so a
number is only comparable to one made under the same name. Common to all of them here: RGB, no border cut unless said,
values clamped to [0, 1] and rounded to 8 bits as a saved image would be, and one value for each image: a metric of a
set is the mean of these, never a metric of pooled errors.

Each function takes two images `[3, h, w]` or batches `[b, 3, h, w]`, float in [0, 1] or uint8, on any device, and
returns float64 values on the CPU, a scalar or `[b]`. An image with values that are not finite gives NaN.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

Images = Float[Tensor, "*b 3 h w"] | UInt8[Tensor, "*b 3 h w"]
Values = Float64[Tensor, "*b"]

_PEAK = 255.0
_GAUSS = cv2.getGaussianKernel(11, 1.5).ravel()
# Along an axis of three entries with repeated borders, 11 taps fall on 3 values: a matrix.
_GAUSS_CHANNELS = np.array(
    [[_GAUSS[np.clip(np.arange(i - 5, i + 6), 0, 2) == j].sum() for j in range(3)] for i in range(3)]
)


def psnr(restored: Images, sharp: Images) -> Values:
    """Peak signal-to-noise ratio in dB over all pixels and channels of an image: MATLAB's `psnr` on uint8 RGB.

    Equal images give infinity, and so does the mean of a set that holds such a pair.
    """
    return _each(lambda x, y: _psnr(float(np.mean((x - y) ** 2))), restored, sharp)


def ssim_matlab3d(restored: Images, sharp: Images) -> Values:
    """Structural similarity of an RGB image taken as a volume: MATLAB's `ssim` on an `h x w x 3` uint8 array.

    An 11x11x11 Gaussian window (sigma 1.5) over rows, columns and channels, borders repeated, K = (0.01, 0.03), mean of
    the whole map. SRN, MPRNet, Restormer, Stripformer and NAFNet report this one.
    """

    def smooth(image: np.ndarray) -> np.ndarray:
        plane = cv2.sepFilter2D(image, -1, _GAUSS, _GAUSS, borderType=cv2.BORDER_REPLICATE)
        return plane @ _GAUSS_CHANNELS.T

    return _each(lambda x, y: _ssim_map(x, y, smooth, _PEAK).mean(), restored, sharp)


def ssim_gaussian(restored: Images, sharp: Images) -> Values:
    """Structural similarity as Wang et al. (2004) define it, on each channel of RGB, then averaged.

    An 11x11 Gaussian window (sigma 1.5), only where it lies inside the image, population covariance. The authors of the
    GoPro set report this one; scikit-image gives it with `gaussian_weights=True, use_sample_covariance=False`.

    Raises:
        ValueError: an image has a side under 11 pixels.
    """

    def smooth(image: np.ndarray) -> np.ndarray:
        return _inside(cv2.sepFilter2D(image, -1, _GAUSS, _GAUSS), 11)

    return _each(lambda x, y: _ssim_map(x, y, smooth, _PEAK).mean(), restored, sharp)


def ssim_uniform(restored: Images, sharp: Images, data_range: float = 1.0) -> Values:
    """Structural similarity in 7x7 windows of equal weight on each channel, then averaged: scikit-image's default.

    Only where the window lies inside the image, sample covariance. With `data_range=2.0`, which scikit-image assumes of
    float images, images in [0, 1] score higher: Uformer's published values are such.

    Raises:
        ValueError: an image has a side under 7 pixels.
    """

    def smooth(image: np.ndarray) -> np.ndarray:
        return _inside(cv2.blur(image, (7, 7)), 7)

    return _each(lambda x, y: _ssim_map(x, y, smooth, _PEAK * data_range, 49 / 48).mean(), restored, sharp)


def _each(metric: Callable[[np.ndarray, np.ndarray], float], restored: Images, sharp: Images) -> Values:
    if restored.shape != sharp.shape or restored.ndim not in (3, 4) or restored.shape[-3] != 3:
        raise ValueError(f"two images or batches [3, h, w] are compared, not {[*restored.shape]} and {[*sharp.shape]}")
    pairs = zip(_levels(restored), _levels(sharp), strict=True)
    values = [np.nan if x is None or y is None else metric(x, y) for x, y in pairs]
    return torch.tensor(values, dtype=torch.float64).reshape(restored.shape[:-3])


def _levels(images: Images) -> Iterator[np.ndarray | None]:
    """Each image as [h, w, 3] float64, whole numbers from 0 to 255; None where a value is not finite."""
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
    # The variances only ever occur as their sum: one filtering less.
    covariance = (smooth(x * y) - product) * unbiased
    variances = (smooth(x * x + y * y) - squares) * unbiased
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def _inside(image: np.ndarray, window: int) -> np.ndarray:
    height, width = image.shape[:2]
    if min(height, width) < window:
        raise ValueError(f"an image of {width}x{height} has no room for a {window}x{window} window")
    edge = window // 2
    return image[edge : height - edge, edge : width - edge]
