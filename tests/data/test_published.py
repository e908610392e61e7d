"""Published data sets: number of pairs and kind of blur."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from sapnet.data.folder import FolderData
from sapnet.data.generated import SyntheticData
from sapnet.data.gopro import GoProData
from sapnet.data.hide import HideData
from sapnet.data.images import write_image
from sapnet.data.published import PublishedData
from sapnet.data.realblur import RealBlurData
from sapnet.data.reds import RedsData
from sapnet.errors import UserError
from tests.contract.layouts import LAYOUTS, OPTIONS
from tests.contract.test_data_modules import compose, compose_data

PUBLISHED = {
    "gopro": GoProData,
    "hide": HideData,
    "realblur_j": RealBlurData,
    "realblur_r": RealBlurData,
    "reds": RedsData,
}
TRAIN_AND_TEST = {"gopro": (2103, 1111), "hide": (6397, 2025), "realblur_j": (3758, 980), "reds": (24000, 3000)}


class Linker:
    """Creates images as links to one file, which is fast for whole data sets."""

    def __init__(self, folder: Path):
        self.source = folder / "one.png"
        write_image(self.source, np.zeros((8, 8, 3), np.uint8))

    def __call__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(self.source, path)


def whole_gopro(root: Path, write: Callable[[Path], None]) -> None:
    for split, sequences in GoProData.pair_counts.items():
        for sequence, frames in sequences.items():
            for frame in range(frames):
                for kind in ("blur", "sharp"):
                    write(root / split / sequence / kind / f"{frame:06d}.png")


def whole_hide(root: Path, write: Callable[[Path], None]) -> None:
    for number in range(2025):
        write(root / "test" / ("test-close-ups", "test-long-shot")[number % 2] / f"{number}.png")
        write(root / "GT" / f"{number}.png")


def whole_realblur(root: Path, write: Callable[[Path], None]) -> None:
    folder, lines = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref", []
    for number in range(980):
        scene, frame = f"{folder}/scene{number // 20:03d}", f"{number % 20}.png"
        sharp, blurred = f"{scene}/gt/gt_{frame}", f"{scene}/blur/blur_{frame}"
        write(root / sharp), write(root / blurred)
        lines.append(f"{sharp} {blurred}")
    (root / "RealBlur_J_test_list.txt").write_text("\n".join(lines))


def whole_reds(root: Path, write: Callable[[Path], None]) -> None:
    for number in range(3000):
        for kind in ("blur", "sharp"):
            write(root / "val" / f"val_{kind}" / f"{number // 100:03d}" / f"{number % 100:08d}.png")


WHOLE = {"gopro": whole_gopro, "hide": whole_hide, "realblur_j": whole_realblur, "reds": whole_reds}


@pytest.mark.parametrize("name", WHOLE)
def test_complete_set_is_accepted_and_incomplete_set_rejected(name: str, tmp_path: Path) -> None:
    """The numbers of the literature, and an incomplete download."""
    train, test = TRAIN_AND_TEST[name]
    counts = {split: compose(name).pair_counts[split] for split in ("train", "test")}
    assert [n if isinstance(n, int) else sum(n.values()) for n in counts.values()] == [train, test]
    WHOLE[name](tmp_path / "set", Linker(tmp_path))
    data = compose(name, root=str(tmp_path / "set"))
    assert len(data.find("test")) == test and "partial" not in data.remarks
    last = data.find("test")[-1]
    for path in {last.blurred, last.sharp}:
        path.unlink()
    with pytest.raises(UserError, match=rf"{test}.*complete the download, or accept the part by data\.partial=true"):
        data.find("test")
    accepted = compose(name, root=str(tmp_path / "set"), partial=True)
    assert len(accepted.find("test")) == test - 1
    assert accepted.remarks["partial"] == f"{test - 1} of {test} pairs"


@pytest.mark.parametrize("name", PUBLISHED)
def test_incomplete_set_is_rejected_without_partial(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path / name)
    options = OPTIONS[name] | {"root": str(tmp_path / name), "crop": 8, "workers": 0}
    title = PUBLISHED[name].title if hasattr(PUBLISHED[name], "title") else "RealBlur"
    with pytest.raises(UserError, match=rf"{title}.*, train: \d+ of \d+ pairs are in .*{name}") as refused:
        compose(name, **(options | {"partial": False})).setup("fit")
    if name == "gopro":
        assert "GOPR0372_07_00 2 of 100, GOPR0372_07_01 0 of 75" in str(refused.value)
    data = compose(name, **options)
    data.setup("test")
    assert data.remarks["partial"].startswith("4 of ")


@pytest.mark.parametrize("name", PUBLISHED)
def test_missing_or_wrong_root_is_reported(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root is not set: name the folder of "):
        compose(name).setup("test")
    with pytest.raises(UserError, match=r"there is no folder .*absent"):
        compose(name, root=str(tmp_path / "absent")).setup("test")
    with pytest.raises(UserError, match=str(tmp_path)):
        compose(name, root=str(tmp_path)).setup("test")


@pytest.mark.parametrize("name", PUBLISHED)
def test_config_contains_each_argument_with_its_default(name: str) -> None:
    config = OmegaConf.to_container(compose_data(name), resolve=True)
    kind = PUBLISHED[name]
    own: dict[str, inspect.Parameter] = {}
    for each in (FolderData, PublishedData, kind):
        own |= inspect.signature(each).parameters
    selects_blur = "blur" in inspect.signature(kind).parameters
    for name_of_folder_data in ("train", "val", "test", "options", *(() if selects_blur else ("blur",))):
        own.pop(name_of_folder_data)
    assert config.pop("_target_") == f"{kind.__module__}.{kind.__qualname__}"
    assert config.keys() == own.keys()
    assert config.pop("name") == name and config.pop("kind", "J") in "JR"
    assert config == {key: own[key].default for key in config}


def test_kind_of_blur_must_be_selected_and_is_in_the_remarks(tmp_path: Path) -> None:
    """`blur` and `blur_gamma` must not be confused."""
    root = str(tmp_path / "gopro")
    LAYOUTS["gopro"](tmp_path / "gopro")
    with pytest.raises(UserError, match=r"choose by data\.blur=blur or data\.blur=blur_gamma"):
        compose("gopro", root=root, partial=True).setup("test")
    for kind in ("blur", "blur_gamma"):
        data = compose("gopro", root=root, partial=True, blur=kind)
        data.setup("test")
        assert data.remarks["blur"] == kind
        pair = data.whole_images("test").source.pairs[0]
        assert pair.blurred.parent.name == kind
    for folder in (tmp_path / "gopro").rglob("blur_gamma"):
        folder.rename(folder.with_name("aside"))
    data = compose("gopro", root=root, partial=True)
    data.setup("test")
    assert data.remarks["blur"] == "blur", "the only one there, and named"


@pytest.mark.parametrize("line", ["1.png", "a/blur/1.png a/gt/1.png", "FOLDER/a/blur/1.png FOLDER/a/gt/1.png", "x y z"])
def test_malformed_realblur_list_is_rejected(line: str, tmp_path: Path) -> None:
    LAYOUTS["realblur_j"](tmp_path)
    path = tmp_path / "RealBlur_J_test_list.txt"
    path.write_text(path.read_text() + line.replace("FOLDER", "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"))
    with pytest.raises(UserError, match=r"RealBlur_J_test_list\.txt, line 5 is not "):
        compose("realblur_j", root=str(tmp_path), partial=True).find("test")


def test_realblur_requires_the_list_of_its_kind(tmp_path: Path) -> None:
    LAYOUTS["realblur_j"](tmp_path)
    with pytest.raises(UserError, match=r"cannot read .*RealBlur_R_test_list\.txt, the list of the test images"):
        compose("realblur_r", root=str(tmp_path)).find("test")
    (tmp_path / "RealBlur_R_test_list.txt").write_text((tmp_path / "RealBlur_J_test_list.txt").read_text())
    with pytest.raises(UserError, match="line 1 is not"):
        compose("realblur_r", root=str(tmp_path)).find("test")
    with pytest.raises(UserError, match=r"data\.kind=X"):
        RealBlurData("X")


def test_reds_without_parent_folder_is_found(tmp_path: Path) -> None:
    names = LAYOUTS["reds"](tmp_path)
    for folder in ("val_blur", "val_sharp"):
        (tmp_path / "val" / folder).rename(tmp_path / folder)
    data = compose("reds", root=str(tmp_path), partial=True)
    assert [pair.name for pair in data.find("test")] == names["test"]


def test_hide_without_a_sharp_image_is_rejected(tmp_path: Path) -> None:
    LAYOUTS["hide"](tmp_path)
    (tmp_path / "GT" / "clos1.png").unlink()
    with pytest.raises(UserError, match=r"clos1\.png without a partner in .*GT"):
        compose("hide", root=str(tmp_path), partial=True).find("test")


def test_synthetic_data_has_no_remarks() -> None:
    assert SyntheticData().remarks == {} and SyntheticData().protocol == "standard"
