"""Modules from checkpoints, tested and used for prediction by Lightning alone."""

import hydra
import pytest
import pytorch_lightning as pl
import torch

from sapnet.checkpoints.architecture import network_weights
from sapnet.checkpoints.files import load_checkpoint
from sapnet.data.generated import SyntheticData
from sapnet.errors import UserError
from sapnet.training.losses import StageLoss
from sapnet.training.policy_gradient_module import PolicyGradientModule
from sapnet.training.restoration_module import RestorationModule
from tests.checkpoints.writing import write_checkpoint
from tests.training.two_optimizers import MODEL

SAMPLING = {
    "_target_": "sapnet.models.adaptive_network.AdaptiveNetwork",
    "generator": {
        "_target_": "sapnet.models.sapnet.network.SAPNet",
        **{"stem": 4, "channels": [4, 4, 4], "stages": 2, "sampled": True},
    },
    "sampler": "learned",
}


def trainer(**options) -> pl.Trainer:
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return pl.Trainer(accelerator="cpu", **(dict.fromkeys(names, False) | options))


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    return write_checkpoint(tmp_path / "nu.ckpt", hydra.utils.instantiate(SAMPLING), SAMPLING)


def test_a_module_has_the_network_and_the_steps_of_its_checkpoint(checkpoint):
    module = PolicyGradientModule.load_from_checkpoint(checkpoint, loss=StageLoss("mse"))
    assert type(module) is PolicyGradientModule and module.loss.kind == "mse" and module.generator_steps == 70
    weights = network_weights(load_checkpoint(checkpoint))
    assert all(torch.equal(value, weights[name]) for name, value in module.network.state_dict().items())
    assert module.network_config == SAMPLING, "it can be saved again"


def test_a_network_that_samples_names_its_module(checkpoint):
    with pytest.raises(UserError, match=r"nu.ckpt: its network samples: use PolicyGradientModule.load_from_checkpoint"):
        RestorationModule.load_from_checkpoint(checkpoint)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"state_dict": {}, "code": Code()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="could run code"):
        RestorationModule.load_from_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "written").exists()


def test_every_test_image_is_predicted_and_measured(checkpoint):
    module = PolicyGradientModule.load_from_checkpoint(checkpoint)
    data = SyntheticData(test=3, size=32, eval_batch=2, workers=0)
    batches = trainer().predict(module, data)
    assert [tuple(batch["restored"].shape) for batch in batches] == [(2, 3, 32, 32), (1, 3, 32, 32)]
    assert [name for batch in batches for name in batch["name"]] == [item["name"] for item in data.whole_images("test")]
    (measured,) = trainer().test(module, data, verbose=False)
    assert set(measured) == {f"test/{kind}{end}" for kind in ("psnr", "ssim") for end in ("_input", "_1", "_2", "")}
    assert measured["test/psnr"] == measured["test/psnr_2"] > 10 and 0 < measured["test/ssim"] < 1


def test_images_that_are_registered_first_are_left_to_the_command(tmp_path):
    module = RestorationModule(hydra.utils.instantiate(MODEL))
    data = SyntheticData(test=1, size=32)
    data.protocol = "realblur"
    with pytest.raises(UserError, match="measured after registration: use sapnet evaluate"):
        trainer().test(module, data, verbose=False)
