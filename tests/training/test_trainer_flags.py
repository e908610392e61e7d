"""Flags of Lightning's Trainer, given as `trainer.FLAG=VALUE`."""

import inspect

import hydra
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.profilers import SimpleProfiler

from sapnet.configs import CONFIG_DIR
from sapnet.errors import UserError
from sapnet.training.assemble import build_trainer
from sapnet.training.trainer_flags import REPLACED, check_trainer_flags

#: Flags that are passed on: a value as on the command line, and the trainer's attribute that shows it, if there is one.
PASSED = {
    "accelerator": ("cpu", None),
    "strategy": ("auto", None),
    "devices": ("1", "num_devices"),
    "num_nodes": ("1", "num_nodes"),
    "precision": ("bf16-mixed", "precision"),
    "max_time": ("00:01:00:00", None),
    "limit_train_batches": ("2", "limit_train_batches"),
    "limit_val_batches": ("3", "limit_val_batches"),
    "limit_test_batches": ("4", "limit_test_batches"),
    "limit_predict_batches": ("5", "limit_predict_batches"),
    "overfit_batches": ("0", "overfit_batches"),
    "val_check_interval": ("7", "val_check_interval"),
    "check_val_every_n_epoch": ("null", "check_val_every_n_epoch"),
    "num_sanity_val_steps": ("1", "num_sanity_val_steps"),
    "log_every_n_steps": ("9", "log_every_n_steps"),
    "enable_progress_bar": ("false", None),
    "enable_model_summary": ("false", None),
    "deterministic": ("false", None),
    "benchmark": ("false", None),
    "inference_mode": ("false", None),
    "use_distributed_sampler": ("false", None),
    "profiler": ("simple", None),
    "detect_anomaly": ("false", None),
    "plugins": ("[]", None),
    "sync_batchnorm": ("true", None),
    "enable_autolog_hparams": ("false", None),
    "model_registry": ("null", None),
}


def compose(*overrides: str):
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return hydra.compose("train", list(overrides))


def check(**flags) -> None:
    check_trainer_flags(OmegaConf.create({"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu"} | flags))


def test_every_flag_of_lightning_is_passed_on_or_has_an_answer():
    """A flag of a newer Lightning belongs to one of the two lists."""
    flags = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    assert flags <= PASSED.keys() | REPLACED.keys() and not PASSED.keys() & REPLACED.keys()


def test_flags_are_given_without_a_plus_and_reach_the_trainer(tmp_path):
    known = inspect.signature(pl.Trainer.__init__).parameters
    passed = {flag: value for flag, value in PASSED.items() if flag in known}
    config = compose("logger=none", *(f"trainer.{flag}={value}" for flag, (value, _) in passed.items()))
    check_trainer_flags(config.trainer)
    trainer = build_trainer(config, tmp_path, [])
    for flag, (_, attribute) in passed.items():
        if attribute is not None:
            assert getattr(trainer, attribute) == config.trainer[flag], flag
    assert trainer.progress_bar_callback is None and isinstance(trainer.profiler, SimpleProfiler)
    assert trainer.profiler.dirpath == tmp_path, "the profile is written to the run folder"


@pytest.mark.parametrize("flag", REPLACED)
def test_a_replaced_flag_names_the_own_option(flag):
    with pytest.raises(UserError, match=rf"^trainer\.{flag}=3: .+(=|leave it out).*\.$"):
        check(**{flag: 3})


def test_values_that_change_nothing_are_accepted():
    check(max_steps=-1, max_epochs=-1, accumulate_grad_batches=1, gradient_clip_val=None, enable_checkpointing=True)


def test_an_unknown_flag_is_one_sentence_with_a_near_match():
    with pytest.raises(UserError, match=r"^trainer.limt_train_batches: .+ did you mean trainer.limit_train_batches\?"):
        check(limt_train_batches=2)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("accelerator", "gpuu"), ("precision", "8"), ("strategy", "x"), ("profiler", "x"), ("limit_val_batches", "x")],
)
def test_a_value_that_lightning_refuses_names_the_flag(flag, value):
    with pytest.raises(UserError, match=rf"^trainer\.{flag}={value}: .+\.$"):
        check(**{flag: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_a_missing_gpu_is_one_sentence():
    with pytest.raises(UserError, match=r"^trainer.accelerator=gpu: .+ Use trainer.accelerator=auto or cpu\.$"):
        check(accelerator="gpu")


@pytest.mark.parametrize("options", ["[ddp,bf16]", "[bf16,ddp]"])
def test_presets_of_strategy_and_precision_combine(options):
    trainer = compose(f"trainer={options}", "trainer.devices=2").trainer
    assert (trainer.strategy, trainer.precision, trainer.devices) == ("ddp", "bf16-mixed", 2)
    one = compose("trainer=bf16").trainer
    assert (one.strategy, one.precision, one.devices, one.val_check_interval) == ("auto", "bf16-mixed", 1, 250)


def test_other_nodes_stay_closed():
    with pytest.raises(hydra.errors.ConfigCompositionException):
        compose("optim.foo=1")
