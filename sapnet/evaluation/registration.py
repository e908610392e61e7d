"""PSNR and SSIM on RealBlur after matching the brightness and registering the images by ECC.

The two cameras of a RealBlur pair differ slightly in exposure and position. The field's evaluation scripts compensate
for this before they measure a restored image; without, the PSNR on RealBlur-R is about 3 dB lower. This module follows
their steps: a scalar matches the brightness, `findTransformECC` fits a homography on the grey images (starting at the
identity, 100 iterations, Gaussian filter of size 5), and only pixels that the warp reads from inside the image count.

The fit fails on flat or very dark images. The identity is used then, and the result is marked. The fit depends on the
version of OpenCV, which the results contain; published values were computed with OpenCV 4.2 and scikit-image 0.17.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

PROTOCOL = f"uint8 RGB, brightness matched, registered by ECC (OpenCV {cv2.__version__}), masked psnr and Gaussian ssim"
"""Description of the protocol, in every result line."""

Image = Float[Tensor, "3 h w"] | UInt8[Tensor, "3 h w"]

_ITERATIONS = 100
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, 0.0)
_GAUSS = cv2.getGaussianKernel(11, 1.5).ravel()
_RADIUS = 5
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class RegisteredMetrics:
    """Metrics of an image after registration.

    Attributes:
        psnr: PSNR in dB.
        ssim: Gaussian SSIM.
        homography: Maps a pixel (x, y, 1) of the sharp image to its position in the restored image.
        unregistered: Whether the fit failed and the identity was used.
        opencv: Version of OpenCV.
    """

    psnr: float
    ssim: float
    homography: Float[np.ndarray, "3 3"]
    unregistered: bool
    opencv: str = cv2.__version__


def registered_metrics(restored: Image, sharp: Image) -> RegisteredMetrics:
    """Compute PSNR in dB and SSIM of an image after its registration to the sharp image, both as 8-bit RGB.

    Equal images have infinite PSNR. An image that contains NaN or infinity has NaN metrics and counts as unregistered.

    Raises:
        ValueError: The images are not RGB of one size, or have a side under 11 pixels.
    """
    if restored.shape != sharp.shape or restored.ndim != 3 or restored.shape[0] != 3 or min(restored.shape[1:]) < 11:
        raise ValueError(
            f"two RGB images of one size and at least 11 pixels, not {[*restored.shape]} and {[*sharp.shape]}"
        )
    x, z = _unit_range(sharp), _unit_range(restored)
    if x is None or z is None:
        return RegisteredMetrics(float("nan"), float("nan"), np.eye(3), True)
    z = match_brightness(z, x)
    homography, failed = fit_homography(z, x)
    warped, mask = warp(z, homography)
    if not mask.any():  # a diverged fit
        homography, failed = np.eye(3, dtype=np.float32), True
        warped, mask = warp(z, homography)
    x, warped = x * mask, warped * mask
    return RegisteredMetrics(_psnr(x, warped, mask), _ssim(x, warped, mask), homography, failed)


def match_brightness(image: Float[np.ndarray, "h w 3"], target: Float[np.ndarray, "h w 3"]) -> np.ndarray:
    """Scale an image by the factor that minimises the squared error to the target; a black image stays black."""
    energy = np.sum(image * image, dtype=np.float64)
    return image if energy == 0 else image * np.float32(np.sum(image * target, dtype=np.float64) / energy)


#: OpenCV accepts None for the mask, its type stubs do not.
_NO_MASK: Any = None


def fit_homography(image: Float[np.ndarray, "h w 3"], target: Float[np.ndarray, "h w 3"]) -> tuple[np.ndarray, bool]:
    """Fit the homography from `target` to `image` by ECC; returns the identity and True if the fit fails."""
    grey = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (target, image)]
    start = np.eye(3, dtype=np.float32)
    try:
        _, homography = cv2.findTransformECC(grey[0], grey[1], start, cv2.MOTION_HOMOGRAPHY, _CRITERIA, _NO_MASK, 5)
    except cv2.error:
        homography = None
    if homography is None or not np.isfinite(homography).all():
        return np.eye(3, dtype=np.float32), True
    return homography, False


def warp(
    image: Float[np.ndarray, "h w 3"], homography: Float[np.ndarray, "3 3"]
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 3"]]:
    """Warp an image to the view of the target by cubic interpolation.

    Returns:
        The warped image, and a mask that is 1 where the warp reads from inside the image.
    """
    height, width = image.shape[:2]
    inverse = cv2.WARP_INVERSE_MAP
    source = (image, homography, (width, height))
    warped = cv2.warpPerspective(*source, flags=cv2.INTER_CUBIC + inverse, borderMode=cv2.BORDER_REFLECT)
    ones = (np.ones_like(image), homography, (width, height))
    mask = cv2.warpPerspective(*ones, flags=cv2.INTER_NEAREST + inverse, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return warped, mask


def _unit_range(image: Image) -> np.ndarray | None:
    image = image.detach()
    if image.dtype != torch.uint8:
        if not torch.isfinite(image).all():
            return None
        image = image.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()).astype(np.float32) / 255


def _psnr(x: np.ndarray, z: np.ndarray, mask: np.ndarray) -> float:
    error = np.sum((x - z) ** 2, dtype=np.float64) / np.sum(mask, dtype=np.float64)
    return float(10 * np.log10(1 / error)) if error > 0 else float("inf")


def _ssim(x: np.ndarray, z: np.ndarray, mask: np.ndarray) -> float:
    def smooth(image: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(image, -1, _GAUSS, _GAUSS, borderType=cv2.BORDER_REFLECT)

    x, z = x.astype(np.float64), z.astype(np.float64)
    mean_x, mean_z = smooth(x), smooth(z)
    variances = smooth(x * x) + smooth(z * z) - mean_x**2 - mean_z**2
    covariance = smooth(x * z) - mean_x * mean_z
    values = (2 * mean_x * mean_z + _C1) * (2 * covariance + _C2)
    values /= (mean_x**2 + mean_z**2 + _C1) * (variances + _C2)
    inside = (slice(_RADIUS, -_RADIUS), slice(_RADIUS, -_RADIUS))
    weights = mask[inside].astype(np.float64)
    if not weights.any():
        return float("nan")
    return float(np.mean((values[inside] * weights).sum((0, 1)) / weights.sum((0, 1))))
