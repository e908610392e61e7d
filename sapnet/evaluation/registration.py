"""PSNR and SSIM on RealBlur: brightness matched, registered by ECC, measured where both images are known.

The two cameras behind a RealBlur pair do not quite agree in exposure and position. So that a restored image is not
charged for it, the field's evaluation scripts register it first; without, RealBlur-R reads about 3 dB low. The steps
here are theirs: one scalar matches the brightness, a homography from the identity is fitted by `findTransformECC` on
the grey images (100 iterations, Gaussian filter of 5), and only pixels that the warp takes from inside count.

On flat or very dark images the fit fails; then the identity is taken, and the result says so. The published figures
come from OpenCV 4.2 and scikit-image 0.17: results carry OpenCV's version, on which the fit depends.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

PROTOCOL = f"uint8 RGB, brightness matched, registered by ECC (OpenCV {cv2.__version__}), masked psnr and Gaussian ssim"
"""Named in every result line."""

Image = Float[Tensor, "3 h w"] | UInt8[Tensor, "3 h w"]

_ITERATIONS = 100
_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, 0.0)
_GAUSS = cv2.getGaussianKernel(11, 1.5).ravel()
_REACH = 5
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class Aligned:
    """What `aligned_metrics` found."""

    psnr: float
    ssim: float
    homography: Float[np.ndarray, "3 3"]
    """Takes a pixel (x, y, 1) of the sharp image to its place in the restored one."""
    fell_back: bool
    """Whether the fit failed and the identity was taken."""
    opencv: str = cv2.__version__


def aligned_metrics(restored: Image, sharp: Image) -> Aligned:
    """PSNR in dB and SSIM of an image after its registration on the sharp one, both taken as 8-bit RGB.

    Equal images have infinite PSNR. An image with values that are not finite gives NaN, and counts as fallen back.

    Raises:
        ValueError: the two are not images `[3, h, w]` of one size, or have a side under 11 pixels.
    """
    if restored.shape != sharp.shape or restored.ndim != 3 or restored.shape[0] != 3 or min(restored.shape[1:]) < 11:
        raise ValueError(f"two images [3, h, w] of 11 pixels or more, not {[*restored.shape]} and {[*sharp.shape]}")
    x, z = _unit(sharp), _unit(restored)
    if x is None or z is None:
        return Aligned(float("nan"), float("nan"), np.eye(3), True)
    z = match_brightness(z, x)
    homography, fell_back = fit_homography(z, x)
    warped, mask = warp(z, homography)
    if not mask.any():  # a fit that has run away
        homography, fell_back = np.eye(3, dtype=np.float32), True
        warped, mask = warp(z, homography)
    x, warped = x * mask, warped * mask
    return Aligned(_psnr(x, warped, mask), _ssim(x, warped, mask), homography, fell_back)


def match_brightness(image: Float[np.ndarray, "h w 3"], target: Float[np.ndarray, "h w 3"]) -> np.ndarray:
    """`image` times the one factor that brings it closest to `target` in squared error; black stays black."""
    energy = np.sum(image * image, dtype=np.float64)
    return image if energy == 0 else image * np.float32(np.sum(image * target, dtype=np.float64) / energy)


#: No mask; the stubs of OpenCV want one.
_EVERYWHERE: Any = None


def fit_homography(image: Float[np.ndarray, "h w 3"], target: Float[np.ndarray, "h w 3"]) -> tuple[np.ndarray, bool]:
    """The homography from `target` to `image` by ECC, and whether there is none and this is the identity."""
    grey = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (target, image)]
    start = np.eye(3, dtype=np.float32)
    try:
        _, found = cv2.findTransformECC(grey[0], grey[1], start, cv2.MOTION_HOMOGRAPHY, _STOP, _EVERYWHERE, 5)
    except cv2.error:
        found = None
    if found is None or not np.isfinite(found).all():
        return np.eye(3, dtype=np.float32), True
    return found, False


def warp(
    image: Float[np.ndarray, "h w 3"], homography: Float[np.ndarray, "3 3"]
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 3"]]:
    """`image` as the target's camera would see it, cubic, and a mask: 1 where it comes from inside `image`."""
    height, width = image.shape[:2]
    inverse = cv2.WARP_INVERSE_MAP
    place = (image, homography, (width, height))
    warped = cv2.warpPerspective(*place, flags=cv2.INTER_CUBIC + inverse, borderMode=cv2.BORDER_REFLECT)
    ones = (np.ones_like(image), homography, (width, height))
    mask = cv2.warpPerspective(*ones, flags=cv2.INTER_NEAREST + inverse, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return warped, mask


def _unit(image: Image) -> np.ndarray | None:
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
    inside = (slice(_REACH, -_REACH), slice(_REACH, -_REACH))
    known = mask[inside].astype(np.float64)
    if not known.any():
        return float("nan")
    return float(np.mean((values[inside] * known).sum((0, 1)) / known.sum((0, 1))))
