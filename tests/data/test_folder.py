"""Folders of the user: configuration, hold-out and real data sets."""

import inspect
import logging
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from sapnet.data.folder import FolderData
from sapnet.data.generated import SyntheticData
from sapnet.errors import UserError
from tests.contract.test_data_modules import compose_data


def names(dataset) -> list[str]:
    return [item["name"] for item in dataset]


def test_training_sequence_is_held_out_and_logged(gopro: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = FolderData(gopro, crop=8, workers=0)
    with caplog.at_level(logging.INFO):
        data.setup("fit")
    held = {name.partition("/")[0] for name in names(data.whole_images("val"))}
    assert len(held) == 1 and len(data.whole_images("val")) == 3 and len(data.whole_images("train")) == 9
    assert not held & {name.partition("/")[0] for name in names(data.whole_images("train"))}
    assert f"validating on 3 training pairs, held out: {held.pop()}" in caplog.text
    assert f"9 pairs for train, blurred as {gopro / 'train'}" in caplog.text


def test_validation_can_be_disabled_or_configured(gopro: Path, reds: Path) -> None:
    without = FolderData(gopro, crop=8, val_share=0.0, workers=0)
    without.setup("fit")
    assert len(without.whole_images("train")) == 12 and without.val_dataloader() == []
    data = FolderData(reds, crop=8, workers=0)
    data.setup("fit")
    assert len(data.whole_images("train")) == 6 and len(data.whole_images("val")) == 6
    given = {"blurred": str(reds / "test" / "test_blur"), "sharp": str(reds / "test" / "test_sharp")}
    named = FolderData(gopro, val=given, crop=8, workers=0)
    named.setup("fit")
    assert len(named.whole_images("train")) == 12 and names(named.whole_images("val"))[0] == "000/00000000"
    with pytest.raises(UserError, match=r"data\.val_share is 1\.0"):
        FolderData(gopro, val_share=1.0)


def test_only_the_used_split_has_to_exist(gopro: Path) -> None:
    shutil.rmtree(gopro / "train")
    data = FolderData(gopro, workers=0)
    data.setup("test")
    assert len(data.whole_images("test")) == 4
    with pytest.raises(UserError, match=r"no folder .*train: data\.root must contain"):
        data.setup("fit")


def test_missing_folders_are_reported(gopro: Path) -> None:
    with pytest.raises(UserError, match=r"no folder of test images is set: set data\.root=FOLDER"):
        FolderData().setup("test")
    for here, missing in (("blurred", "sharp"), ("sharp", "blurred")):
        half = {here: str(gopro), missing: None}
        with pytest.raises(UserError, match=rf"data\.test\.{here} is set without data\.test\.{missing}"):
            FolderData(test=half).setup("test")


def test_images_of_different_sizes_have_batches_of_one(tmp_path: Path, write_pair: Callable[..., None]) -> None:
    for number, height in enumerate((20, 20, 20, 24)):
        write_pair(tmp_path / "in" / f"{number}.png", tmp_path / "out" / f"{number}.png", height)
    test = {"blurred": str(tmp_path / "in"), "sharp": str(tmp_path / "out")}
    data = FolderData(test=test, eval_batch=2, workers=0)
    data.setup("test")
    assert [len(batch["name"]) for batch in data.test_dataloader()] == [1, 1, 1, 1]
    for folder in ("in", "out"):
        (tmp_path / folder / "3.png").unlink()
    data = FolderData(test=test, eval_batch=2, workers=0)
    data.setup("test")
    assert [len(batch["name"]) for batch in data.test_dataloader()] == [2, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_file_stops_training_with_its_name(gopro: Path, workers: int) -> None:
    """The message must also arrive from a loader process, which wraps it."""
    victim = gopro / "train" / "GOPRtrain_00" / "sharp" / "000002.png"
    victim.write_bytes(victim.read_bytes()[:-20])
    data = FolderData(gopro, crop=8, val_share=0.0, workers=workers)
    data.setup("fit")
    with pytest.raises(UserError, match=rf"{victim} is damaged or truncated"):
        list(data.train_dataloader())
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("root", "pairs", "tests", "size"), [("GOPRO_Large", 11, 4, (720, 1280)), ("REDS_180p", 20, 40, (180, 320))]
)
def test_real_data_sets_load(real_data: Path, root: str, pairs: int, tests: int, size: tuple[int, int]) -> None:
    data = FolderData(real_data / root, crop=96, batch=4, workers=0)
    data.setup("fit")
    data.setup("test")
    train, val, test = (data.whole_images(split) for split in ("train", "val", "test"))
    assert len(train) + len(val) == pairs and len(test) == tests
    batch = next(iter(data.train_dataloader()))
    assert batch["blurred"].shape == (4, 3, 96, 96)
    item = test[0]
    assert item["blurred"].shape == item["sharp"].shape == (3, *size)
    # The same scene, and blur takes detail away.
    error = (item["blurred"] - item["sharp"]).square().mean()
    assert 0 < error < 0.02
    detail = [item[key].diff(dim=2).abs().mean() for key in ("blurred", "sharp")]
    assert detail[0] < detail[1]


@pytest.mark.parametrize(("name", "kind"), [("folder", FolderData), ("synthetic", SyntheticData)])
def test_config_contains_each_argument_with_its_default(name: str, kind: type) -> None:
    config = compose_data(name)
    arguments = {key: value for key, value in OmegaConf.to_container(config, resolve=True).items() if key[0] != "_"}
    defaults = {key: parameter.default for key, parameter in inspect.signature(kind).parameters.items()}
    folders = {key: value for key, value in arguments.items() if value == {"blurred": None, "sharp": None}}
    assert arguments == defaults | folders
    data = hydra.utils.instantiate(config)
    assert type(data) is kind and data.name == name


def test_config_accepts_folders_and_the_seed_of_the_run(reds: Path) -> None:
    folders = [
        f"data.test.{kind}={reds / 'test' / f'test_{name}'}" for kind, name in (("blurred", "blur"), ("sharp", "sharp"))
    ]
    data = hydra.utils.instantiate(compose_data("folder", "+seed=5", *folders, f"data.root={reds}", "data.crop=8"))
    assert data.seed == 5 and type(data.folders["test"]) is dict
    data.setup("fit")
    data.setup("test")
    assert len(data.whole_images("test")) == 6 and torch.is_tensor(data.whole_images("test")[0]["sharp"])
