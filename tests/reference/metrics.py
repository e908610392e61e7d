"""Literal implementations of image metrics in float64."""

import numpy as np


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    """Compute 10 log10(255^2 / mean squared error) of two uint8 images."""
    total = 0.0
    for a, b in zip(x.ravel().tolist(), y.ravel().tolist(), strict=True):
        total += (a - b) ** 2
    return 10 * np.log10(255.0**2 / (total / x.size))


def gaussian(length: int = 11, sigma: float = 1.5) -> np.ndarray:
    """Return Gaussian weights that sum to one."""
    weights = np.exp(-((np.arange(length) - length // 2) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def similarity(x: np.ndarray, y: np.ndarray, weights: np.ndarray, peak: float, unbiased: float = 1.0) -> float:
    """Compute the SSIM of two windows of equal shape (Wang et al. 2004, Eq. 13 with C3 = C2 / 2)."""
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
    variance_x = (weights * (x - mean_x) ** 2).sum() * unbiased
    variance_y = (weights * (y - mean_y) ** 2).sum() * unbiased
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum() * unbiased
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance * structure


def ssim_matlab3d(x: np.ndarray, y: np.ndarray) -> float:
    """Compute MATLAB's `ssim` of two h x w x 3 arrays: a 3D window with channels, repeated borders."""
    g = gaussian()
    weights = g[:, None, None] * g[None, :, None] * g[None, None, :]
    x, y = (np.pad(image.astype(np.float64), 5, mode="edge") for image in (x, y))
    positions = np.ndindex(*(side - 10 for side in x.shape))
    windows = (tuple(slice(start, start + 11) for start in position) for position in positions)
    return float(np.mean([similarity(x[window], y[window], weights, 255.0) for window in windows]))


def ssim_inside(x: np.ndarray, y: np.ndarray, weights: np.ndarray, peak: float, unbiased: float = 1.0) -> float:
    """Compute the SSIM of each channel for windows inside the image, averaged over positions and channels."""
    side = weights.shape[0]
    x, y = x.astype(np.float64), y.astype(np.float64)
    values = [
        similarity(x[i : i + side, j : j + side, c], y[i : i + side, j : j + side, c], weights, peak, unbiased)
        for i in range(x.shape[0] - side + 1)
        for j in range(x.shape[1] - side + 1)
        for c in range(3)
    ]
    return float(np.mean(values))


def ssim_gaussian(x: np.ndarray, y: np.ndarray) -> float:
    """Compute the SSIM of Wang et al. (2004): 11x11 Gaussian window, population covariance."""
    return ssim_inside(x, y, np.outer(gaussian(), gaussian()), 255.0)


def ssim_uniform(x: np.ndarray, y: np.ndarray, data_range: float) -> float:
    """Compute the SSIM with a uniform 7x7 window and the sample covariance (divided by 48, not 49)."""
    return ssim_inside(x, y, np.full((7, 7), 1 / 49), 255.0 * data_range, 49 / 48)
