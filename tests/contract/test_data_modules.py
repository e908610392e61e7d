"""Requirements on all data modules of conf/data, tested on generated data sets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from sapnet.configs import CONFIG_DIR
from sapnet.data.folder import FolderData
from sapnet.data.module import PairData
from sapnet.evaluation.runner import PROTOCOLS
from tests.contract.layouts import HEIGHT, LAYOUTS, OPTIONS, WIDTH

Make = Callable[..., PairData]
EVERY = sorted(path.stem for path in (CONFIG_DIR / "data").glob("*.yaml"))
GENERATED = ("synthetic", "synthetic_local")
SMALL = {"crop": 8, "batch": 2, "workers": 0}


def compose_data(name: str, *overrides: str) -> DictConfig:
    """The node of `data=NAME data.KEY=VALUE ...`."""
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base=None):
        return hydra.compose(overrides=[f"+data={name}", *(overrides or ["+seed=0"])]).data


def compose(name: str, **options: Any) -> PairData:
    """Build the module of `data=NAME data.KEY=VALUE ...`."""
    return hydra.utils.instantiate(OmegaConf.merge(compose_data(name), options))


def test_every_option_of_conf_data_is_tested() -> None:
    assert set(EVERY) == {*LAYOUTS, *GENERATED}


@pytest.mark.parametrize("name", EVERY)
class TestDataModule:
    """Tests for every data module."""

    @pytest.fixture
    def expected(self, name: str, tmp_path: Path) -> dict[str, list[str]]:
        if name in GENERATED:
            return {"test": [f"test/{number:06d}" for number in range(2)]}
        return LAYOUTS[name](tmp_path / name)

    @pytest.fixture
    def make(self, name: str, tmp_path: Path, expected: dict[str, list[str]]) -> Make:
        sizes = {"train": 5, "val": 2, "test": 2, "size": 32}
        options = sizes if name in GENERATED else {"root": str(tmp_path / name), **OPTIONS[name]}
        return lambda **more: compose(name, **(SMALL | options | more))

    @pytest.fixture
    def data(self, make: Make) -> PairData:
        data = make()
        data.setup("fit")
        data.setup("test")
        return data

    def test_names_of_the_pairs_of_each_split(self, name: str, data: PairData, expected) -> None:
        names = {split: [item["name"] for item in data.whole_images(split)] for split in ("train", "val", "test")}
        assert names["test"] == sorted(expected["test"])
        if name not in GENERATED:
            assert sorted(names["train"] + names["val"]) == sorted(expected["train"])
        assert all(names.values()) and len(names["train"]) > len(names["val"])

    def test_splits_share_no_image_and_no_sequence(self, data: PairData) -> None:
        """Overlapping splits would invalidate all results."""
        items = {split: list(data.whole_images(split)) for split in ("train", "val", "test")}
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            for key in ("blurred", "sharp"):
                pictures = {item[key].numpy().tobytes() for item in items[one]}
                assert len(pictures) == len(items[one])
                assert not pictures & {item[key].numpy().tobytes() for item in items[other]}
        scenes = {split: {item["name"].rpartition("/")[0] for item in items[split]} for split in ("train", "val")}
        assert not (scenes["train"] & scenes["val"]) - {""}

    def test_batches_are_pairs_of_images_in_0_1(self, data: PairData) -> None:
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            for batch in loader:
                shape = batch["blurred"].shape
                assert batch["sharp"].shape == shape and shape[1] == 3 and len(batch["name"]) == shape[0]
                assert loader is data._train_loader or shape[2:] in {(HEIGHT, WIDTH), (32, 32)}
                for key in ("blurred", "sharp"):
                    assert batch[key].dtype == torch.float32 and 0 <= batch[key].min() <= batch[key].max() <= 1

    def test_blurred_and_sharp_are_not_swapped(self, name: str, make: Make, tmp_path: Path) -> None:
        """The path of a file states whether it is blurred or sharp."""
        data = make()
        data.setup("test")
        source = data.whole_images("test").source
        if isinstance(data, FolderData):
            sharp_words = {"sharp", "gt", "GT", "val_sharp"}
            for pair in source.pairs:
                inner = set(pair.blurred.relative_to(tmp_path).parts)
                assert not inner & sharp_words and set(pair.sharp.relative_to(tmp_path).parts) & sharp_words
                number = pair.name.rpartition("/")[2]
                assert pair.blurred.stem.removeprefix("blur_") == pair.sharp.stem.removeprefix("gt_") == number

    def test_name_protocol_and_remarks(self, name: str, data: PairData) -> None:
        assert data.name == name
        assert data.protocol == ("realblur" if name.startswith("realblur") else "standard")
        assert data.protocol in PROTOCOLS
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in data.remarks.items())

    def test_validation_on_test_images_is_recorded(self, name: str, make: Make, expected) -> None:
        if name in GENERATED:
            pytest.skip("its validation scenes are generated")
        data = make(validate_on_test=True)
        data.setup("fit")
        assert [item["name"] for item in data.whole_images("val")] == sorted(expected["test"])
        assert sorted(item["name"] for item in data.whole_images("train")) == sorted(expected["train"])
        assert data.remarks["validated_on"] == "test" and "validated_on" not in make().remarks

    def test_only_the_requested_split_is_needed(self, name: str, make: Make, tmp_path: Path) -> None:
        """Evaluation does not need the training images."""
        if name in GENERATED:
            pytest.skip("it has no files")
        for path in (*tmp_path.rglob("train"), *tmp_path.rglob("*_train_list.txt")):
            path.rename(path.with_name(f"elsewhere_{path.name}"))
        data = make()
        data.setup("test")
        assert len(data.whole_images("test")) == 4
