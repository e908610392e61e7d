"""Samples: conversion to tensors, file pairs and the cache."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sapnet.data.images import read_image
from sapnet.data.pairs import pair_folders
from sapnet.data.samples import Cached, PairFiles, Sample, WholeImages, usable_cores
from sapnet.errors import UserError


class Counted:
    """A source that counts the accesses to each sample in this process."""

    def __init__(self, samples: int):
        self.made = [0] * samples

    def __len__(self) -> int:
        return len(self.made)

    def __getitem__(self, index: int) -> Sample:
        self.made[index] += 1
        picture = np.full((4, 5, 3), index, np.uint8)
        return Sample(f"{index}", picture, 255 - picture, np.full((4, 5), index / 4, np.float32))

    def size(self, index: int) -> tuple[int, int]:
        return 4, 5

    def label(self, index: int) -> str:
        return f"label {index}"


def test_item_contains_the_arrays_of_the_sample() -> None:
    item = Counted(3)[2].to_item()
    assert item["name"] == "2" and item["blurred"].shape == (3, 4, 5)
    torch.testing.assert_close(item["blurred"], torch.full((3, 4, 5), 2 / 255))
    torch.testing.assert_close(item["sharp"], torch.full((3, 4, 5), 253 / 255))
    assert torch.equal(item["extent"], torch.full((1, 4, 5), 0.5))
    assert "extent" not in Sample("x", *np.zeros((2, 4, 5, 3), np.uint8)).to_item()


@pytest.mark.parametrize("workers", [0, 2])
def test_cache_loads_each_sample_once(workers: int) -> None:
    source = Counted(11)
    cached = Cached(source, workers, "filling")
    for _ in range(2):
        for index in range(11):
            expected = Counted(11)[index]
            assert cached[index].name == expected.name
            for key in ("blurred", "sharp", "extent"):
                np.testing.assert_array_equal(getattr(cached[index], key), getattr(expected, key))
    # Made by other processes, the samples are not made in this one at all.
    assert source.made == [0 if workers else 1] * 11
    assert (len(cached), cached.size(3), cached.label(3)) == (11, (4, 5), "label 3")


def test_iteration_over_whole_images_ends() -> None:
    """The iteration must end for a source that raises no IndexError."""
    assert [item["name"] for item in WholeImages(Counted(4))] == ["0", "1", "2", "3"]


def test_files_are_read_on_access_and_sizes_on_construction(tmp_path: Path, write_pair: Callable[..., None]) -> None:
    for name, width in (("a.png", 20), ("b.png", 24)):
        write_pair(tmp_path / "in" / name, tmp_path / "out" / name, 16, width)
    files = PairFiles(pair_folders(tmp_path / "in", tmp_path / "out"))
    assert [files.size(index) for index in range(2)] == [(16, 20), (16, 24)]
    assert files.label(1) == str(tmp_path / "in" / "b.png") and len(files) == 2
    np.testing.assert_array_equal(files[1].blurred, read_image(tmp_path / "in" / "b.png"))
    np.testing.assert_array_equal(files[1].sharp, read_image(tmp_path / "out" / "b.png"))
    data = (tmp_path / "out" / "a.png").read_bytes()
    (tmp_path / "out" / "a.png").write_bytes(data[: len(data) // 2])
    files = PairFiles(files.pairs)
    with pytest.raises(UserError, match=r"out/a\.png is damaged or truncated"):
        files[0]


def test_number_of_cores_is_positive() -> None:
    assert usable_cores() >= 1
