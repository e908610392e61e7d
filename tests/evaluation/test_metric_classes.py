"""The torchmetrics classes compared with the functions that define the value of one image."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sapnet.evaluation.metrics import (
    PSNR,
    ImageMean,
    SSIMGaussian,
    SSIMMatlab3D,
    SSIMUniform,
    psnr,
    ssim_gaussian,
    ssim_matlab3d,
    ssim_uniform,
)
from tests.integration.conftest import ROOT

CASES = {
    "psnr": (PSNR, psnr),
    "ssim_matlab3d": (SSIMMatlab3D, ssim_matlab3d),
    "ssim_gaussian": (SSIMGaussian, ssim_gaussian),
    "ssim_uniform": (SSIMUniform, ssim_uniform),
    "ssim_uniform, range 2": (lambda: SSIMUniform(data_range=2.0), lambda x, y: ssim_uniform(x, y, 2.0)),
}
every_metric = pytest.mark.parametrize("name", CASES)


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    sharp = torch.rand(count, 3, 16, 20, generator=rng)
    strength = torch.arange(1, count + 1).view(-1, 1, 1, 1) / 40
    return (sharp + strength * torch.randn(sharp.shape, generator=rng)).clamp(0, 1), sharp


@every_metric
def test_compute_is_the_mean_of_the_function_over_all_images(name: str) -> None:
    make, function = CASES[name]
    restored, sharp = images(7)
    values = function(restored, sharp)
    metric, double = make(), make().set_dtype(torch.float64)
    for batch in (slice(0, 4), slice(4, 6)):
        metric.update(restored[batch], sharp[batch])
        double.update(restored[batch], sharp[batch])
    metric.update(restored[6], sharp[6])
    double.update(restored[6], sharp[6])
    assert metric.compute().dtype == torch.float32
    assert metric.compute().item() == pytest.approx(values.mean().item(), rel=1e-6)
    assert double.compute().item() == pytest.approx(values.mean().item(), rel=1e-14)
    metric.reset()
    metric.update(restored[:1], sharp[:1])
    assert metric.compute() == values[0].float()


@every_metric
def test_forward_returns_the_mean_of_the_batch_and_updates_the_metric(name: str) -> None:
    make, function = CASES[name]
    restored, sharp = images(5)
    values, metric = function(restored, sharp), make().set_dtype(torch.float64)
    assert metric(restored[0], sharp[0]) == values[0]
    assert metric(restored[1:], sharp[1:]).item() == pytest.approx(values[1:].mean().item(), rel=1e-14)
    assert metric.compute().item() == pytest.approx(values.mean().item(), rel=1e-14)


def test_equal_images_give_infinity_and_nan_gives_nan() -> None:
    restored, sharp = images(3)
    metric = PSNR()
    metric.update(restored, sharp)
    metric.update(sharp[:1], sharp[:1])
    assert metric.compute() == torch.inf
    restored[1, 0, 0, 0] = torch.nan
    metric.update(restored, sharp)
    assert metric.compute().isnan()
    metric.reset()
    metric.update(restored[:1], sharp[:1])
    assert metric.compute().isfinite()


@every_metric
def test_merged_states_give_the_mean_over_the_images_of_both(name: str) -> None:
    """Of unequal numbers of images."""
    make, function = CASES[name]
    restored, sharp = images(5)
    first, second = make().set_dtype(torch.float64), make().set_dtype(torch.float64)
    first.update(restored[:1], sharp[:1])
    second.update(restored[1:], sharp[1:])
    first.merge_state(second)
    assert first.compute().item() == pytest.approx(function(restored, sharp).mean().item(), rel=1e-14)


def test_image_mean_equals_numpy_to_the_last_bit() -> None:
    """Of one value and of a row of values per image: summaries in results files must not change."""
    table = np.random.default_rng(0).normal(30, 4, (1111, 3))
    for values in (table, table[:, 0].copy(), table[:, :1].copy()):
        metric = ImageMean().set_dtype(torch.float64)
        metric.update(torch.from_numpy(values))
        np.testing.assert_array_equal(metric.compute().numpy(), values.mean(axis=0))


def test_states_are_not_saved_with_the_weights() -> None:
    assert PSNR().state_dict() == {}


@pytest.mark.slow
def test_two_processes_compute_the_mean_over_all_images(tmp_path: Path) -> None:
    """Each metric, with gloo; the processes have unequal numbers of images."""
    code = f"""
import sys
import torch
import torch.distributed
from tests.evaluation.test_metric_classes import CASES, images
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://{tmp_path}/store", rank=rank, world_size=2)
restored, sharp = (batch[:1] if rank == 0 else batch[1:] for batch in images(5))
for make, _ in CASES.values():
    metric, own = make(), make()
    own.sync_on_compute = False
    print(metric(restored, sharp).item(), own(restored, sharp).item(), metric.compute().item(), own.compute().item())
torch.distributed.destroy_process_group()
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(rank)], env=environment, **pipes) for rank in range(2)
    ]
    for rank, process in enumerate(processes):
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        for line, (_, function) in zip(out.splitlines(), CASES.values(), strict=True):
            values = function(*images(5))
            own = values[:1] if rank == 0 else values[1:]
            expected = [value.item() for value in (own.mean(), own.mean(), values.mean(), own.mean())]
            assert [float(text) for text in line.split()] == pytest.approx(expected, rel=1e-6)
