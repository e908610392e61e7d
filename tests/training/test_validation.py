"""Logged PSNR and SSIM of a validation."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from sapnet.evaluation.metrics import psnr, ssim_matlab3d
from tests.training.test_policy_gradient_module import adaptive


class Images(Dataset):
    """Five image pairs of increasing blur."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict:
        rng = torch.Generator().manual_seed(index)
        sharp = torch.rand(3, 32, 32, generator=rng)
        blurred = (sharp + 0.04 * (index + 1) * torch.rand(3, 32, 32, generator=rng)).clamp(0, 1)
        return {"blurred": blurred, "sharp": sharp, "name": f"{index}"}


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_validation_logs_means_over_images(batch: int) -> None:
    """Also with a last batch that is smaller, and in a second validation."""
    module, loader = adaptive(), DataLoader(Images(), batch)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(enable_model_summary=False, **options)
    for _ in range(2):
        (logged,) = trainer.validate(module, loader, verbose=False)
    names = [f"{kind}{stage}" for kind in ("psnr", "psnr_draw") for stage in ("_1", "_2", "_3", "")]
    names = {f"val/{name}" for name in ("psnr_input", "psnr_best", "ssim", *names)}
    assert {*logged} - {"generator_steps"} == names
    with torch.no_grad():
        items = [Images()[index] for index in range(5)]
        outputs = [module.network.eval()(item["blurred"][None]) for item in items]
    expected = [psnr(item["blurred"], item["sharp"]) for item in items]
    assert logged["val/psnr_input"] == pytest.approx(torch.stack(expected).mean().item(), rel=1e-6)
    for k in range(3):
        expected = [psnr(stages[k][0], item["sharp"]) for stages, item in zip(outputs, items, strict=True)]
        assert logged[f"val/psnr_{k + 1}"] == pytest.approx(torch.stack(expected).mean().item(), rel=1e-6)
    expected = [ssim_matlab3d(stages[-1][0], item["sharp"]) for stages, item in zip(outputs, items, strict=True)]
    assert logged["val/ssim"] == pytest.approx(torch.stack(expected).mean().item(), rel=1e-6)
    assert logged["val/psnr"] == logged["val/psnr_3"] and logged["val/psnr_draw"] == logged["val/psnr_draw_3"]
    assert not any("validation_metrics" in key for key in module.state_dict())


def test_the_best_psnr_is_that_of_all_validations_so_far() -> None:
    """Also of those before a resume."""
    module, loader = adaptive(), DataLoader(Images(), 5)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(enable_model_summary=False, **options)
    heads = [stage.head.weight for stage in module.network.generator.stages]
    scores = []
    for step, scale in enumerate((1.0, 0.0, 3.0)):
        module.generator_steps = step
        with torch.no_grad():
            originals = [head.clone() for head in heads]
            for head in heads:
                head.mul_(scale)
            (logged,) = trainer.validate(module, loader, verbose=False)
            for head, original in zip(heads, originals, strict=True):
                head.copy_(original)
        scores.append((logged["val/psnr"], logged["val/psnr_best"]))
    (first, best_1), (second, best_2), (third, best_3) = scores
    assert third < first < second, "the test shows nothing"
    assert (best_1, best_2, best_3) == pytest.approx((first, second, second))
    assert module.validation_scores == pytest.approx({"psnr": third, "step": 2, "psnr_best": second, "step_best": 1})
    checkpoint = {"state_dict": {}, "callbacks": {}}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["sapnet"]["validation"] == module.validation_scores
