"""Registration of RealBlur images: recovered warps, metrics against their definitions, failed fits."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from sapnet.evaluation.metrics import psnr
from sapnet.evaluation.registration import RegisteredMetrics, fit_homography, match_brightness, registered_metrics, warp
from sapnet.evaluation.results_file import read_results
from sapnet.evaluation.runner import evaluate_images
from sapnet.evaluation.summary import as_table, summarise

HEIGHT, WIDTH = 208, 272


def picture(homography: np.ndarray | None = None, gain: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Return uint8 `[3, h, w]` waves seen through a homography, evaluated exactly instead of interpolated."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    if homography is not None:
        x, y, z = np.tensordot(homography, np.stack([x, y, np.ones_like(x)]), 1)
        x, y = x / z, y / z
    waves = np.zeros((3, HEIGHT, WIDTH))
    for _ in range(24):
        length, angle, phase = rng.uniform(10, 60), *rng.uniform(0, 2 * np.pi, 2)
        colour = rng.uniform(0.3, 1, 3)[:, None, None]
        waves += colour * np.sin(2 * np.pi / length * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return torch.from_numpy(np.clip(gain * (127 + 14 * waves), 0, 255).round().astype(np.uint8))


def rotated(degrees: float) -> np.ndarray:
    return np.vstack([cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), degrees, 1.0), [0, 0, 1]])


def shifted(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


WARPS = {
    "none": np.eye(3),
    "half a pixel": shifted(0.5, 0.0),
    "some pixels": shifted(-2.3, 1.7),
    "a rotation": rotated(1.0),
    "a rotation and a shift": rotated(-0.7) @ shifted(1.2, 0.6),
    "a perspective": np.array([[1.004, 0.003, -0.8], [-0.002, 0.997, 0.9], [3e-5, -2e-5, 1.0]]),
}


def corners(homography: np.ndarray) -> np.ndarray:
    positions = homography @ [[0, WIDTH - 1, 0, WIDTH - 1], [0, 0, HEIGHT - 1, HEIGHT - 1], [1, 1, 1, 1]]
    return positions[:2] / positions[2]


@pytest.mark.parametrize("gain", [1.0, 0.8])
@pytest.mark.parametrize("name", WARPS)
def test_known_warp_is_recovered_within_a_tenth_of_a_pixel(name: str, gain: float) -> None:
    restored, sharp = picture(gain=gain), picture(WARPS[name])
    result = registered_metrics(restored, sharp)
    assert not result.unregistered
    assert np.abs(corners(result.homography) - corners(WARPS[name])).max() < 0.1
    assert result.psnr > 45 and result.ssim > 0.99
    if name != "none" or gain != 1:
        assert result.psnr > psnr(restored, sharp).item() + 10


def degraded(restored: torch.Tensor) -> torch.Tensor:
    noise = np.random.default_rng(1).normal(0, 6, restored.shape)
    return torch.from_numpy(np.clip(restored.numpy() + noise, 0, 255).round().astype(np.uint8))


@pytest.mark.parametrize("name", ["none", "some pixels", "a perspective"])
def test_metrics_follow_their_definitions(name: str) -> None:
    """SSIM from the map of scikit-image, PSNR written out over the mask."""
    restored, sharp = degraded(picture()), picture(WARPS[name])
    x, z = (each.numpy().transpose(1, 2, 0).astype(np.float32) / 255 for each in (sharp, restored))
    z = match_brightness(z, x)
    homography, failed = fit_homography(z, x)
    warped, mask = warp(z, homography)
    assert not failed and set(np.unique(mask)) <= {0.0, 1.0} and mask.mean() > 0.9
    x, warped = (x * mask).astype(np.float64), (warped * mask).astype(np.float64)
    error = ((x - warped) ** 2).sum() / mask.sum()
    _, values = structural_similarity(
        x, warped, channel_axis=2, gaussian_weights=True, use_sample_covariance=False, data_range=1.0, full=True
    )
    inner, weights = (values * mask)[5:-5, 5:-5], mask[5:-5, 5:-5]
    ssim = np.mean([inner[..., c].sum() / weights[..., c].sum() for c in range(3)])
    result = registered_metrics(restored, sharp)
    assert result.psnr == pytest.approx(-10 * np.log10(error), abs=1e-5)
    assert result.ssim == pytest.approx(ssim, abs=1e-7)


def test_mask_excludes_pixels_from_outside_the_image() -> None:
    image = np.ones((HEIGHT, WIDTH, 3), np.float32)
    _, mask = warp(image, shifted(4.0, -2.0).astype(np.float32))
    expected = np.ones_like(image)
    expected[:, WIDTH - 4 :] = expected[:2] = 0
    np.testing.assert_array_equal(mask, expected)


def test_brightness_is_matched_by_the_best_factor() -> None:
    x, z = (picture(seed=seed).numpy().transpose(1, 2, 0).astype(np.float32) / 255 for seed in (0, 1))
    matched = match_brightness(z, x)
    factor = matched[0, 0, 0] / z[0, 0, 0]
    error = [((x - f * z) ** 2).sum() for f in (factor * 0.99, factor, factor * 1.01)]
    np.testing.assert_allclose(matched, factor * z, rtol=1e-6)
    assert error[1] < min(error[0], error[2])


def test_failed_fit_uses_the_identity_and_is_marked() -> None:
    """A flat ground truth cannot be registered."""
    restored = degraded(torch.full((3, HEIGHT, WIDTH), 128, dtype=torch.uint8))
    sharp = torch.full((3, HEIGHT, WIDTH), 100, dtype=torch.uint8)
    result = registered_metrics(restored, sharp)
    assert result.unregistered and result.opencv == cv2.__version__
    np.testing.assert_array_equal(result.homography, np.eye(3))
    x, z = (each.numpy().astype(np.float64) / 255 for each in (sharp, restored))
    z *= (x * z).sum() / (z * z).sum()
    assert result.psnr == pytest.approx(-10 * np.log10(((x - z) ** 2).mean()), abs=1e-4)


def test_flat_and_black_images() -> None:
    flat, black = torch.full((3, 16, 16), 100, dtype=torch.uint8), torch.zeros(3, 16, 16, dtype=torch.uint8)
    equal = registered_metrics(flat, flat)
    assert equal.psnr == float("inf") and equal.ssim == pytest.approx(1) and equal.unregistered
    dark = registered_metrics(black, flat)
    assert dark.unregistered and dark.psnr == pytest.approx(-20 * np.log10(100 / 255), abs=1e-5)


def test_floats_are_rounded_to_8_bits_and_nan_gives_nan() -> None:
    restored, sharp = degraded(picture()), picture(WARPS["some pixels"])
    result, rounded = (registered_metrics(each, sharp) for each in (restored, restored / 255 + 0.4 / 255))
    assert isinstance(result, RegisteredMetrics) and (result.psnr, result.ssim) == (rounded.psnr, rounded.ssim)
    invalid = restored / 255
    invalid[0, 3, 3] = torch.nan
    result = registered_metrics(invalid, sharp)
    assert np.isnan([result.psnr, result.ssim]).all() and result.unregistered


@pytest.mark.parametrize("shape", [(3, 10, 30), (1, 20, 20), (2, 3, 20, 20)])
def test_other_shapes_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, TypeError)):
        registered_metrics(torch.zeros(shape), torch.zeros(shape))


def test_result_lines_of_the_protocol(tmp_path: Path) -> None:
    """Input and stages are registered; lines name OpenCV's version, and the table counts unregistered images."""
    sharp = picture(WARPS["half a pixel"])[:, :64, :64] / 255
    blurred = degraded(picture())[:, :64, :64] / 255
    flat = torch.full((3, 64, 64), 0.4)
    items = [
        {"name": "one", "blurred": blurred, "sharp": sharp},
        {"name": "flat", "blurred": degraded((flat * 255).byte()) / 255, "sharp": flat},
    ]
    device, path = torch.device("cpu"), tmp_path / "results.jsonl"

    def restore(image: torch.Tensor, _: torch.Tensor) -> list[torch.Tensor]:
        return [image, image * 0.5]

    lines = evaluate_images(restore, items, device, path, {"data": "synthetic"}, protocol="realblur")
    one = registered_metrics(blurred, sharp)
    assert lines[0]["input_psnr"] == lines[0]["stage_psnr"][0] == one.psnr
    assert lines[0]["input_ssim"] == lines[0]["stage_ssim"][0] == one.ssim
    # The brightness is matched, up to rounding.
    assert lines[0]["stage_psnr"][1] == pytest.approx(one.psnr, abs=0.5)
    assert [line["unregistered"] for line in lines] == [[False] * 3, [True] * 3]
    assert all(cv2.__version__ in line["protocol"] for line in read_results(path))
    table = as_table(summarise(lines))
    assert cv2.__version__ in table and table.endswith("compared without registration: 1")
    plain = evaluate_images(restore, items, device, path, {"data": "synthetic"})
    assert plain[0]["stage_psnr"][0] == psnr(blurred, sharp).item() and "unregistered" not in plain[0]
    assert len(read_results(path)) == 4, "lines of another protocol are ignored"
