"""Resumed trainings with changed settings or other checkpoints, and trainings that start from weights."""

import logging
import re
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sapnet.checkpoints.files import load_checkpoint
from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
from sapnet.configs import CONFIG_DIR
from sapnet.errors import UserError
from sapnet.training.fitting import fit
from sapnet.training.restoration_module import RestorationModule
from tests.integration.conftest import TINY

SMALL_NETWORK = [
    *(argument for argument in TINY if not argument.startswith(("steps=", "data."))),
    "logger=none",
    "network.stages=2",
]
SMALL = [*SMALL_NETWORK, *(argument for argument in TINY if argument.startswith("data.")), "data.val=1", "data.size=32"]


def train(folder: Path, *overrides: str, small: Sequence[str] = SMALL) -> Path:
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = hydra.compose("train", [*small, *overrides])
    return fit(config, folder)


@pytest.fixture(autouse=True)
def log(caplog) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="sapnet")
    return caplog


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """Return the folder of a run of four steps with generator and policy."""
    folder = tmp_path_factory.mktemp("first") / "run"
    train(folder, "steps=4", "sampling=nu", "policy.pretrain=0.5")
    return folder


NU = ("sampling=nu", "policy.pretrain=0.5")


@pytest.fixture
def run(first, tmp_path) -> Path:
    """Return a copy of the first run, to resume."""
    return Path(shutil.copytree(first, tmp_path / "run"))


@pytest.fixture
def rates(monkeypatch) -> dict[int, list[float]]:
    """Record the learning rates of all optimizers at each generator step."""
    rates: dict[int, list[float]] = {}
    plain = RestorationModule.training_step

    def record(self, batch, batch_idx):
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        rates[self.generator_steps] = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(RestorationModule, "training_step", record)
    return rates


@cache
def expected(steps: int, lr: float, warm_up: float = 0.12) -> list[float]:
    """Return the learning rates of the generator in an uninterrupted run."""
    from sapnet.training.schedules import one_cycle

    optimizer = torch.optim.Adam([torch.zeros(1)], lr=lr)
    schedule, rates = one_cycle(optimizer, [steps], warm_up), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def steps_of(path: Path) -> int:
    return load_checkpoint(path)["sapnet"]["generator_steps"]


def config_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_more_steps_continue_in_the_longer_schedule(run, rates, log):
    train(run, "steps=8", *NU)
    assert sorted(rates) == [4, 5, 6, 7] and steps_of(run / "checkpoints" / "last.ckpt") == 8
    assert [rates[step][0] for step in rates] == pytest.approx(expected(8, 1.5e-3)[4:])
    # In the longer run the policy learns from step 4.
    assert [rates[step][1] for step in rates] == pytest.approx(expected(4, 1.5e-3))
    assert f"resuming {run} at step 4 (from {run}/checkpoints/last.ckpt)" in log.messages
    assert "steps: 4 -> 8" in log.messages
    assert config_of(run)["steps"] == 8


def test_changed_optimizer_settings_are_applied(run, rates, log):
    overrides = ("optim.optimizer.lr=0.0005", "optim.scheduler.warm_up=0.5", "+optim.optimizer.weight_decay=0.1")
    train(run, "steps=8", *NU, *overrides, "policy.rate=0.1")
    assert [rates[step][0] for step in rates] == pytest.approx(expected(8, 5e-4, 0.5)[4:])
    assert [rates[step][1] for step in rates] == pytest.approx(0.1 * torch.tensor(expected(4, 5e-4, 0.5)))
    saved = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert [state["param_groups"][0]["weight_decay"] for state in saved["optimizer_states"]] == [0.1, 0.1]
    # Adam's moments are kept.
    assert saved["optimizer_states"][0]["state"][0]["step"] == 8
    assert "optim.optimizer.lr: 0.0015 -> 0.0005" in log.messages


def test_the_schedule_may_change(run, rates):
    train(run, "steps=6", *NU, "optim.scheduler=null")
    assert rates == {4: [1.5e-3] * 2, 5: [1.5e-3] * 2}
    train(run, "steps=8", *NU, "optim=adam", "optim.scheduler.every=7")
    assert [rates[6][0], rates[7][0]] == [1e-4, 0.5e-4]


def test_a_refused_change_leaves_the_folder_unchanged(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for overrides in (["loss=mse"], ["steps=2"], ["data.train=7"], ["trainer.precision=16-mixed"], ["resume=never"]):
        with pytest.raises(UserError):
            train(run, "steps=8", *NU, *overrides)
    # Another number of images than in the configuration.
    with pytest.raises(UserError, match=r"trained on 5 images and data.train has 6: .*init_from"):
        saved = load_checkpoint(run / "checkpoints" / "last.ckpt")
        saved["SyntheticData"]["samples"] = 5
        AtomicCheckpointIO().save_checkpoint(saved, run / "other.ckpt")
        train(run.parent / "new", "steps=8", *NU, f"ckpt_path={run}/other.ckpt")
    (run / "other.ckpt").unlink()
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert not (run.parent / "new").exists()


@pytest.mark.slow
def test_a_checkpoint_of_another_folder_is_compared_and_not_changed(run, tmp_path, log):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    ckpt_path = f"ckpt_path={run}/checkpoints/last.ckpt"
    with pytest.raises(UserError, match=r"loss.kind: l1 -> mse cannot change"):
        train(tmp_path / "new", "steps=8", *NU, ckpt_path, "loss=mse")
    train(tmp_path / "new", "steps=6", *NU, ckpt_path)
    assert f"resuming {tmp_path}/new at step 4 (from {run}/checkpoints/last.ckpt)" in log.messages
    assert steps_of(tmp_path / "new" / "checkpoints" / "best.ckpt") == 6
    # When the command is repeated, the folder's own checkpoint is newer.
    log.clear()
    train(tmp_path / "new", "steps=7", *NU, ckpt_path)
    assert any("(step 6) is not older than ckpt_path=" in message for message in log.messages)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_checkpoint_without_configuration_is_resumed_with_a_warning(run, rates, log):
    last = run / "checkpoints" / "last.ckpt"
    saved = load_checkpoint(last)
    del saved["sapnet"]["config"]
    # State of `halving` in earlier versions.
    saved["lr_schedulers"] = [{"step_size": 200000, "gamma": 0.5, "last_epoch": 4} for _ in range(2)]
    AtomicCheckpointIO().save_checkpoint(saved, last)
    train(run, "steps=6", *NU, "optim=adam")
    assert f"{last} does not contain its configuration: changed settings are not detected" in log.messages
    assert rates[4] == [1e-4, 1e-4] and steps_of(last) == 6


@pytest.fixture
def photos(tmp_path) -> list[str]:
    """Return the overrides for four pairs of images."""
    for kind in ("blurred", "sharp"):
        (tmp_path / kind).mkdir()
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f"{number}.png")
    paths = [f"data.train.{kind}={tmp_path / kind}" for kind in ("blurred", "sharp")]
    return ["data=folder", *paths, "data.crop=32", "data.batch=2", "data.workers=0"]


def test_weights_initialise_a_training_on_other_data(run, photos, tmp_path, rates, log):
    source = run / "checkpoints" / "last.ckpt"
    own = [*photos, "sampling=nu", "policy.pretrain=0", "loss=mse", "seed=5", "optim.optimizer.lr=1e-12", "steps=2"]
    with pytest.raises(UserError, match=r"cannot change .*init_from="):
        train(tmp_path / "tuned", *own, f"ckpt_path={source}", small=SMALL_NETWORK)
    train(tmp_path / "tuned", *own, f"init_from={source}", small=SMALL_NETWORK)
    folder = tmp_path / "tuned"
    assert sorted(rates) == [0, 1] and steps_of(folder / "checkpoints" / "last.ckpt") == 2
    ours, other = (load_checkpoint(path) for path in (folder / "checkpoints" / "last.ckpt", source))
    for name, value in other["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, msg=name)
    assert ours["optimizer_states"][0]["state"][0]["step"] == 2, "a new optimizer"
    assert f"starting {folder} at step 0 with the weights of {source}" in log.messages
    # The repeated command resumes.
    log.clear()
    train(folder, *own, f"init_from={source}", small=SMALL_NETWORK)
    assert any("exists: the training resumes from it, and init_from=" in message for message in log.messages)
    assert f"resuming {folder} at step 2 (from {folder}/checkpoints/last.ckpt)" in log.messages


def test_only_the_generator_is_transferred_to_another_sampler(run, tmp_path, log):
    train(tmp_path / "new", "steps=1", "sampling=random", f"init_from={run}/checkpoints/last.ckpt")
    assert any(message.startswith("Not transferred from") for message in log.messages)
    with pytest.raises(UserError, match=r"last.ckpt: its weights do not fit this run's network"):
        train(tmp_path / "u", "steps=1", f"init_from={run}/checkpoints/last.ckpt")
    assert not (tmp_path / "u").exists()


@pytest.mark.slow
def test_chosen_on_test_is_kept_when_weights_are_transferred(run, tmp_path):
    saved = load_checkpoint(run / "checkpoints" / "last.ckpt")
    saved["sapnet"]["chosen_on_test"] = True
    AtomicCheckpointIO().save_checkpoint(saved, tmp_path / "chosen.ckpt")
    for steps in (1, 2):
        last = train(tmp_path / "new", f"steps={steps}", *NU, f"init_from={tmp_path}/chosen.ckpt")
        assert load_checkpoint(last)["sapnet"]["chosen_on_test"] is True


@pytest.mark.slow
@pytest.mark.parametrize(("every", "last_good"), [(2, "last"), (1, "best")])
def test_after_an_infinite_loss_the_training_resumes_as_advised(tmp_path, every, last_good):
    """With every=1 `last.ckpt` contains the weights of the infinite loss, so `best.ckpt` is advised."""
    folder = tmp_path / "run"
    overrides = (f"checkpoint_every={every}", "validate_every=2", "steps=8", "optim.scheduler=null")
    train(folder, *overrides, "steps=2")
    with pytest.raises(UserError) as caught:
        train(folder, *overrides, "optim.optimizer.lr=1e20")
    message = str(caught.value)
    assert message.startswith("Training stopped at generator step 4: the loss is")
    file, step, name = re.search(
        r"the last good checkpoint is (\S+) \(step (\d+)\).*\(ckpt_path=(\w+)\)", message
    ).groups()
    assert (name, int(step), steps_of(Path(file))) == (last_good, 2, 2)
    assert "optim.optimizer.lr is 1e+20" in message
    last = train(folder, *overrides, f"ckpt_path={name}", "optim.optimizer.lr=1e-4")
    assert steps_of(last) == 8 and config_of(folder)["optim"]["optimizer"]["lr"] == 1e-4


@pytest.mark.parametrize("precision", ["16-mixed", "16"])
def test_clipping_of_scaled_gradients_is_refused(tmp_path, precision):
    with pytest.raises(
        UserError, match=rf"trainer.precision={precision} scales .*optim.clip_norm=0.2 .*optim.clip_norm=null"
    ):
        train(tmp_path / "run", "steps=1", f"trainer.precision={precision}")
    assert not (tmp_path / "run").exists()


def test_a_training_without_time_for_a_step_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"ended before its first step, see trainer\.max_time"):
        train(tmp_path / "run", "steps=4", "trainer.max_time=00:00:00:00")
