"""Image metrics compared with scikit-image and with literal implementations of their definitions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sapnet.data.images import read_image, to_array, to_tensor, write_image
from sapnet.evaluation.metrics import psnr, ssim_gaussian, ssim_matlab3d, ssim_uniform
from tests.reference import metrics as reference

METRICS = {
    "psnr": psnr,
    "ssim_matlab3d": ssim_matlab3d,
    "ssim_gaussian": ssim_gaussian,
    "ssim_uniform": ssim_uniform,
    "ssim_uniform, range 2": lambda x, y: ssim_uniform(x, y, data_range=2.0),
}
LITERAL = {
    "psnr": reference.psnr,
    "ssim_matlab3d": reference.ssim_matlab3d,
    "ssim_gaussian": reference.ssim_gaussian,
    "ssim_uniform": lambda x, y: reference.ssim_uniform(x, y, 1.0),
    "ssim_uniform, range 2": lambda x, y: reference.ssim_uniform(x, y, 2.0),
}
every_metric = pytest.mark.parametrize("name", METRICS)


def image(seed: int, height: int = 17, width: int = 14, smooth: bool = True) -> np.ndarray:
    """Return a random uint8 image, by default with correlated neighbours as in a photograph."""
    values = np.random.default_rng(seed).normal(size=(height, width, 3))
    if smooth:
        values = values.cumsum(0).cumsum(1)
        values /= np.abs(values).max()
    return np.uint8(np.clip(127 + 120 * values, 0, 255))


def degraded(sharp: np.ndarray, strength: float = 12.0, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(scale=strength, size=sharp.shape)
    return np.uint8(np.clip(np.roll(sharp, 1, axis=1) + noise, 0, 255))


@every_metric
@pytest.mark.parametrize("shape", [(17, 14), (11, 30)])
@pytest.mark.parametrize("smooth", [True, False])
def test_values_follow_the_definition(name: str, shape: tuple[int, int], smooth: bool) -> None:
    sharp = image(0, *shape, smooth)
    blurred = degraded(sharp)
    value = METRICS[name](to_tensor(blurred), to_tensor(sharp)).item()
    assert value == pytest.approx(LITERAL[name](blurred, sharp), abs=1e-6 if name == "psnr" else 1e-9)


def test_volume_window_mixes_channels_on_images_of_any_size() -> None:
    """On grey images SSIM per channel gives the same values; small images need the repeated borders."""
    for shape in ((17, 14), (3, 5), (1, 1)):
        sharp = image(3, *shape)
        blurred = degraded(sharp)
        value = ssim_matlab3d(to_tensor(blurred), to_tensor(sharp)).item()
        assert value == pytest.approx(reference.ssim_matlab3d(blurred, sharp), abs=1e-9)
    sharp = image(3)
    shifted = np.roll(sharp, 1, axis=2)
    assert (
        abs(ssim_matlab3d(to_tensor(shifted), to_tensor(sharp)) - ssim_gaussian(to_tensor(shifted), to_tensor(sharp)))
        > 0.05
    )


def test_scikit_image_agrees(real_data: Path) -> None:
    """On part of a real pair."""
    folder = real_data / "GOPRO_Large" / "test" / "GOPR0384_11_00"
    blurred, sharp = (read_image(folder / kind / "000001.png")[200:500, 300:800] for kind in ("blur", "sharp"))
    x, y = to_tensor(blurred), to_tensor(sharp)
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert psnr(x, y).item() == pytest.approx(peak_signal_noise_ratio(sharp, blurred), abs=1e-6)
    expected = structural_similarity(sharp, blurred, channel_axis=2, **wang)
    assert ssim_gaussian(x, y).item() == pytest.approx(expected, abs=1e-5)
    for data_range in (1.0, 2.0):
        expected = structural_similarity(sharp / 255.0, blurred / 255.0, channel_axis=2, data_range=data_range)
        assert ssim_uniform(x, y, data_range).item() == pytest.approx(expected, abs=1e-5)


def test_scikit_image_agrees_on_synthetic_images() -> None:
    sharp = image(5, 40, 50)
    blurred = degraded(sharp)
    x, y = to_tensor(blurred), to_tensor(sharp)
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert psnr(x, y).item() == pytest.approx(peak_signal_noise_ratio(sharp, blurred), abs=1e-6)
    expected = structural_similarity(sharp, blurred, channel_axis=2, **wang)
    assert ssim_gaussian(x, y).item() == pytest.approx(expected, abs=1e-5)
    expected = structural_similarity(sharp, blurred, channel_axis=2)
    assert ssim_uniform(x, y).item() == pytest.approx(expected, abs=1e-5)


@every_metric
def test_batch_gives_the_values_of_its_images(name: str) -> None:
    sharp = torch.stack([to_tensor(image(seed)) for seed in range(3)])
    blurred = torch.stack([to_tensor(degraded(image(seed), 5.0 * (seed + 1))) for seed in range(3)])
    values = METRICS[name](blurred, sharp)
    assert values.shape == (3,) and values.dtype == torch.float64
    singles = [METRICS[name](x, y) for x, y in zip(blurred, sharp, strict=True)]
    assert all(single.shape == () for single in singles)
    assert torch.equal(values, torch.stack(singles))


def test_mean_over_images_differs_from_pooled_psnr() -> None:
    """Pooling the squared error over the batch gives 13 dB instead of 25 dB."""
    sharp = torch.zeros(2, 3, 16, 16)
    blurred = torch.stack([torch.full((3, 16, 16), 4 / 255), torch.full((3, 16, 16), 81 / 255)])
    mean = psnr(blurred, sharp).mean().item()
    assert mean == pytest.approx((20 * np.log10(255 / 4) + 20 * np.log10(255 / 81)) / 2)
    pooled = 10 * np.log10(1 / ((blurred - sharp) ** 2).mean().item())
    assert mean - pooled > 9


@every_metric
def test_floats_give_the_value_of_the_saved_image(name: str, tmp_path: Path) -> None:
    """Without rounding to 8 bits the values would differ in the second digit."""
    sharp = to_tensor(image(0))
    restored = sharp + 0.3 * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(0))
    assert restored.min() < 0
    write_image(tmp_path / "a.png", to_array(restored))
    saved = torch.from_numpy(read_image(tmp_path / "a.png")).permute(2, 0, 1)
    truth = torch.from_numpy(image(0)).permute(2, 0, 1)
    assert saved.dtype == truth.dtype == torch.uint8
    assert METRICS[name](restored, sharp) == METRICS[name](saved, truth) == METRICS[name](restored, truth)


@every_metric
def test_values_of_equal_images_and_of_nan(name: str) -> None:
    sharp = to_tensor(image(0))
    assert METRICS[name](sharp, sharp).item() == (float("inf") if name == "psnr" else pytest.approx(1.0, abs=1e-12))
    invalid = torch.stack([sharp, sharp])
    invalid[1, 0, 0, 0] = float("nan")
    values = METRICS[name](invalid, torch.stack([sharp, sharp]))
    assert torch.isfinite(values[0]) or name == "psnr"
    assert torch.isnan(values[1])


@every_metric
@given(first=st.integers(0, 9), second=st.integers(10, 19))
def test_metrics_are_symmetric_and_invariant_to_mirroring(name: str, first: int, second: int) -> None:
    x, y = to_tensor(image(first)), to_tensor(image(second))
    value = METRICS[name](x, y).item()
    assert METRICS[name](y, x).item() == pytest.approx(value, rel=1e-9)
    assert METRICS[name](x.flip(-1), y.flip(-1)).item() == pytest.approx(value, rel=1e-9)
    assert METRICS[name](x.transpose(1, 2), y.transpose(1, 2)).item() == pytest.approx(value, rel=1e-9)


@every_metric
def test_inputs_with_gradients_and_in_half_precision(name: str) -> None:
    sharp = to_tensor(image(0))
    blurred = to_tensor(degraded(image(0)))
    value = METRICS[name](blurred, sharp)
    assert METRICS[name](blurred.clone().requires_grad_(), sharp) == value
    assert METRICS[name](blurred.half(), sharp).item() == pytest.approx(value.item(), rel=1e-3)


@every_metric
def test_images_of_different_sizes_are_rejected(name: str) -> None:
    """By the function, or by the shape checks of the tests."""
    for x, y in (((3, 12, 12), (3, 12, 13)), ((1, 12, 12), (1, 12, 12))):
        with pytest.raises((ValueError, TypeCheckError), match=r"are compared|parameters of sapnet"):
            METRICS[name](torch.rand(x), torch.rand(y))


def test_images_smaller_than_the_window_are_rejected() -> None:
    for metric, side in ((ssim_gaussian, 11), (ssim_uniform, 7)):
        metric(torch.rand(3, side, 40), torch.rand(3, side, 40))
        with pytest.raises(ValueError, match="smaller than the"):
            metric(torch.rand(3, side - 1, 40), torch.rand(3, side - 1, 40))
