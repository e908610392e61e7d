"""Trainings resumed with other settings or from other places, or started from weights alone: real ones, by `fit`."""

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

from sapnet.configs import CONFIG_DIR
from sapnet.errors import UserError
from sapnet.training.checkpoints import AtomicCheckpointIO, load_checkpoint
from sapnet.training.fitting import fit
from sapnet.training.restoration import RestorationModule
from tests.integration.conftest import TINY

SMALL_NETWORK = [
    *(word for word in TINY if not word.startswith(("steps=", "data."))),
    "logger=none",
    "network.stages=2",
]
SMALL = [*SMALL_NETWORK, *(word for word in TINY if word.startswith("data.")), "data.val=1", "data.size=32"]


def train(folder: Path, *words: str, small: Sequence[str] = SMALL) -> Path:
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = hydra.compose("train", [*small, *words])
    return fit(config, folder)


@pytest.fixture(autouse=True)
def said(caplog) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="sapnet")
    return caplog


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """A run of four steps with generator and policy."""
    folder = tmp_path_factory.mktemp("first") / "run"
    train(folder, "steps=4", "sampling=nu", "policy.pretrain=0.5")
    return folder


NU = ("sampling=nu", "policy.pretrain=0.5")


@pytest.fixture
def run(first, tmp_path) -> Path:
    """A copy of it, to go on with."""
    return Path(shutil.copytree(first, tmp_path / "run"))


@pytest.fixture
def rates(monkeypatch) -> dict[int, list[float]]:
    """The rates of all optimizers at each generator step of the trainings of a test."""
    seen: dict[int, list[float]] = {}
    plain = RestorationModule.training_step

    def note(self, batch, batch_idx):
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        seen[self.generator_steps] = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(RestorationModule, "training_step", note)
    return seen


@cache
def expected(steps: int, lr: float, warm_up: float = 0.12) -> list[float]:
    """The generator's rates in an unbroken run."""
    from sapnet.training.schedules import one_cycle

    optimizer = torch.optim.Adam([torch.zeros(1)], lr=lr)
    schedule, found = one_cycle(optimizer, [steps], warm_up), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def steps_of(path: Path) -> int:
    return load_checkpoint(path)["sapnet"]["generator_steps"]


def config_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_more_steps_enter_the_longer_schedule_at_the_present_step(run, rates, said):
    train(run, "steps=8", *NU)
    assert sorted(rates) == [4, 5, 6, 7] and steps_of(run / "checkpoints" / "last.ckpt") == 8
    assert [rates[step][0] for step in rates] == pytest.approx(expected(8, 1.5e-3)[4:])
    # The policy of the longer run learns from step 4 on.
    assert [rates[step][1] for step in rates] == pytest.approx(expected(4, 1.5e-3))
    assert f"resuming {run} at step 4 (from {run}/checkpoints/last.ckpt)" in said.messages
    assert "steps: 4 -> 8" in said.messages
    assert config_of(run)["steps"] == 8


def test_changed_settings_of_the_optimizer_reach_the_next_step(run, rates, said):
    words = ("optim.optimizer.lr=0.0005", "optim.scheduler.warm_up=0.5", "+optim.optimizer.weight_decay=0.1")
    train(run, "steps=8", *NU, *words, "policy.rate=0.1")
    assert [rates[step][0] for step in rates] == pytest.approx(expected(8, 5e-4, 0.5)[4:])
    assert [rates[step][1] for step in rates] == pytest.approx(0.1 * torch.tensor(expected(4, 5e-4, 0.5)))
    saved = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert [state["param_groups"][0]["weight_decay"] for state in saved["optimizer_states"]] == [0.1, 0.1]
    # Adam's moments are kept.
    assert saved["optimizer_states"][0]["state"][0]["step"] == 8
    assert "optim.optimizer.lr: 0.0015 -> 0.0005" in said.messages


def test_another_schedule_may_take_over(run, rates):
    train(run, "steps=6", *NU, "optim.scheduler=null")
    assert rates == {4: [1.5e-3] * 2, 5: [1.5e-3] * 2}
    train(run, "steps=8", *NU, "optim=adam", "optim.scheduler.every=7")
    assert [rates[6][0], rates[7][0]] == [1e-4, 0.5e-4]


def test_a_refused_change_leaves_the_folder_as_it_was(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for words in (["loss=mse"], ["steps=2"], ["data.train=7"], ["trainer.precision=16-mixed"], ["resume=never"]):
        with pytest.raises(UserError):
            train(run, "steps=8", *NU, *words)
    # More images than the configuration tells of.
    with pytest.raises(UserError, match=r"trained on 5 images and data.train holds 6: .*init_from"):
        saved = load_checkpoint(run / "checkpoints" / "last.ckpt")
        saved["SyntheticData"]["samples"] = 5
        AtomicCheckpointIO().save_checkpoint(saved, run / "other.ckpt")
        train(run.parent / "new", "steps=8", *NU, f"ckpt_path={run}/other.ckpt")
    (run / "other.ckpt").unlink()
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert not (run.parent / "new").exists()


@pytest.mark.slow
def test_a_checkpoint_from_elsewhere_is_compared_too_and_stays_as_it_is(run, tmp_path, said):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    given = f"ckpt_path={run}/checkpoints/last.ckpt"
    with pytest.raises(UserError, match=r"loss.kind: l1 -> mse cannot change"):
        train(tmp_path / "new", "steps=8", *NU, given, "loss=mse")
    train(tmp_path / "new", "steps=6", *NU, given)
    assert f"resuming {tmp_path}/new at step 4 (from {run}/checkpoints/last.ckpt)" in said.messages
    assert steps_of(tmp_path / "new" / "checkpoints" / "best.ckpt") == 6
    # The same command again: the folder's own checkpoint is newer.
    said.clear()
    train(tmp_path / "new", "steps=7", *NU, given)
    assert any("(step 6) is not older than ckpt_path=" in message for message in said.messages)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_an_old_checkpoint_without_its_configuration_goes_on_with_a_warning(run, rates, said):
    last = run / "checkpoints" / "last.ckpt"
    saved = load_checkpoint(last)
    del saved["sapnet"]["config"]
    # As `halving` was stored before.
    saved["lr_schedulers"] = [{"step_size": 200000, "gamma": 0.5, "last_epoch": 4} for _ in range(2)]
    AtomicCheckpointIO().save_checkpoint(saved, last)
    train(run, "steps=6", *NU, "optim=adam")
    assert f"{last} does not hold its configuration: whether a setting has changed is unknown" in said.messages
    assert rates[4] == [1e-4, 1e-4] and steps_of(last) == 6


@pytest.fixture
def photos(tmp_path) -> list[str]:
    """The words for four pairs of one's own."""
    for kind in ("blurred", "sharp"):
        (tmp_path / kind).mkdir()
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f"{number}.png")
    paths = [f"data.train.{kind}={tmp_path / kind}" for kind in ("blurred", "sharp")]
    return ["data=folder", *paths, "data.crop=32", "data.batch=2", "data.workers=0"]


def test_weights_alone_start_a_new_training_on_one_s_own_photos(run, photos, tmp_path, rates, said):
    source = run / "checkpoints" / "last.ckpt"
    own = [*photos, "sampling=nu", "policy.pretrain=0", "loss=mse", "seed=5", "optim.optimizer.lr=1e-12", "steps=2"]
    with pytest.raises(UserError, match=r"cannot change .*init_from="):
        train(tmp_path / "tuned", *own, f"ckpt_path={source}", small=SMALL_NETWORK)
    train(tmp_path / "tuned", *own, f"init_from={source}", small=SMALL_NETWORK)
    folder = tmp_path / "tuned"
    assert sorted(rates) == [0, 1] and steps_of(folder / "checkpoints" / "last.ckpt") == 2
    ours, theirs = (load_checkpoint(path) for path in (folder / "checkpoints" / "last.ckpt", source))
    for name, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, msg=name)
    assert ours["optimizer_states"][0]["state"][0]["step"] == 2, "a fresh optimizer"
    assert f"starting {folder} at step 0 with the weights of {source}" in said.messages
    # The same command again goes on.
    said.clear()
    train(folder, *own, f"init_from={source}", small=SMALL_NETWORK)
    assert any("exists: the training resumes from it, and init_from=" in message for message in said.messages)
    assert f"resuming {folder} at step 2 (from {folder}/checkpoints/last.ckpt)" in said.messages


def test_weights_for_another_sampler_are_the_generator_s(run, tmp_path, said):
    train(tmp_path / "new", "steps=1", "sampling=random", f"init_from={run}/checkpoints/last.ckpt")
    assert any(message.startswith("Not taken from") for message in said.messages)
    with pytest.raises(UserError, match=r"last.ckpt: its weights do not fit this run's network"):
        train(tmp_path / "u", "steps=1", f"init_from={run}/checkpoints/last.ckpt")
    assert not (tmp_path / "u").exists()


@pytest.mark.slow
def test_what_was_chosen_on_test_images_says_so_after_a_new_start_too(run, tmp_path):
    saved = load_checkpoint(run / "checkpoints" / "last.ckpt")
    saved["sapnet"]["chosen_on_test"] = True
    AtomicCheckpointIO().save_checkpoint(saved, tmp_path / "chosen.ckpt")
    for steps in (1, 2):
        last = train(tmp_path / "new", f"steps={steps}", *NU, f"init_from={tmp_path}/chosen.ckpt")
        assert load_checkpoint(last)["sapnet"]["chosen_on_test"] is True


@pytest.mark.slow
@pytest.mark.parametrize(("every", "named"), [(2, "last"), (1, "best")])
def test_after_numbers_that_are_not_finite_the_training_goes_on_as_the_sentence_says(tmp_path, every, named):
    """`last.ckpt` of every=1 holds the very weights that gave the infinite loss: `best.ckpt` is named."""
    folder = tmp_path / "run"
    words = (f"checkpoint_every={every}", "validate_every=2", "steps=8", "optim.scheduler=null")
    train(folder, *words, "steps=2")
    with pytest.raises(UserError) as caught:
        train(folder, *words, "optim.optimizer.lr=1e20")
    sentence = str(caught.value)
    assert sentence.startswith("Training stopped at generator step 4: the loss is")
    file, step, word = re.search(
        r"the last good checkpoint is (\S+) \(step (\d+)\).*\(ckpt_path=(\w+)\)", sentence
    ).groups()
    assert (word, int(step), steps_of(Path(file))) == (named, 2, 2)
    assert "optim.optimizer.lr is 1e+20" in sentence
    last = train(folder, *words, f"ckpt_path={word}", "optim.optimizer.lr=1e-4")
    assert steps_of(last) == 8 and config_of(folder)["optim"]["optimizer"]["lr"] == 1e-4


@pytest.mark.parametrize("precision", ["16-mixed", "16"])
def test_scaled_gradients_are_not_clipped(tmp_path, precision):
    with pytest.raises(
        UserError, match=rf"trainer.precision={precision} scales .*optim.clip_norm=0.2 .*optim.clip_norm=null"
    ):
        train(tmp_path / "run", "steps=1", f"trainer.precision={precision}")
    assert not (tmp_path / "run").exists()
