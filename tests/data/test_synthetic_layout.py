"""Synthetic scenes as files: lossless, without overwriting other files."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sapnet.data.synthetic import SyntheticScenes, layout, read_extent, write_gopro_layout
from sapnet.data.synthetic.__main__ import main
from sapnet.errors import UserError


def read_image(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return torch.from_numpy(np.asarray(image).astype(np.float32) / np.float32(255.0)).permute(2, 0, 1)


@pytest.mark.parametrize("gamma", [2.2, None])
def test_files_contain_the_items(tmp_path: Path, gamma: float | None) -> None:
    dataset = SyntheticScenes("test", 3, (48, 64), seed=4, gamma=gamma)
    (sequence,) = write_gopro_layout(dataset, tmp_path)
    assert sequence.parent == tmp_path / "test"
    for index in range(3):
        item, name = dataset[index], f"{index + 1:06d}.png"
        assert torch.equal(read_image(sequence / "blur" / name), item["blurred"])
        assert torch.equal(read_image(sequence / "sharp" / name), item["sharp"])
        assert torch.equal(read_extent(sequence / "extent" / name), item["extent"])
    assert {path.name for path in sequence.iterdir()} == {"blur", "sharp", "extent"}
    assert all(path.suffix == ".png" for path in tmp_path.rglob("*") if path.is_file())


def test_sequences_have_a_hundred_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SEQUENCE", 2)
    sequences = write_gopro_layout(SyntheticScenes("val", 5, (32, 32)), tmp_path, split="train")
    assert [len(list((each / "blur").iterdir())) for each in sequences] == [2, 2, 1]
    assert {each.parent for each in sequences} == {tmp_path / "train"}


def test_non_empty_folder_is_rejected(tmp_path: Path) -> None:
    kept = tmp_path / "train" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("keep")
    with pytest.raises(UserError, match=re.escape(str(kept.parent))):
        write_gopro_layout(SyntheticScenes("train", 1, (32, 32)), tmp_path)
    assert [*tmp_path.rglob("*.*")] == [kept]
    write_gopro_layout(SyntheticScenes("test", 1, (32, 32)), tmp_path)  # another split of the same root is fine


def test_failed_write_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_gopro_layout(SyntheticScenes("train", 1, (32, 32)), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_extent_of_a_missing_or_wrong_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="extent"):
        read_extent(tmp_path / "none.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "rgb.png")
    with pytest.raises(UserError, match=r"rgb\.png"):
        read_extent(tmp_path / "rgb.png")


def test_command_writes_scenes_and_reports_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(tmp_path), "--split", "val", "--scenes", "2", "--size", "32", "48", "--gamma", "none"]
    assert main(command) == 0
    assert "2 scenes" in capsys.readouterr().out
    stored = SyntheticScenes("val", 2, (32, 48), gamma=None)[1]["blurred"]
    assert torch.equal(read_image(next(tmp_path.glob("val/*/blur/000002.png"))), stored)
    assert main(command) == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "val") in error and len(error.strip().splitlines()) == 1
    assert main([str(tmp_path / "other"), "--size", "8", "8"]) == 1
    assert not (tmp_path / "other").exists()
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file"), "--scenes", "1", "--size", "32", "32"]) == 1


def test_command_writes_the_selected_distribution(tmp_path: Path) -> None:
    command = [str(tmp_path), "--scenes", "1", "--size", "64", "64", "--distribution", "synthetic_local"]
    assert main(command) == 0
    stored = SyntheticScenes("train", 1, (64, 64), distribution="synthetic_local")[0]["extent"]
    assert torch.equal(read_extent(next(tmp_path.glob("train/*/extent/000001.png"))), stored)


@pytest.mark.slow
def test_module_prints_its_help() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "sapnet.data.synthetic", "--help"], capture_output=True, text=True, check=True
    )
    assert "--gamma" in shown.stdout
