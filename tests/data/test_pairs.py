"""Search for pairs: layouts, names and invalid folders."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapnet.data.pairs import Pair, check_sizes, find_pairs, has_split, hold_out, pair_folders
from sapnet.errors import UserError


@pytest.fixture
def folders(tmp_path: Path, write_pair: Callable[..., None]) -> tuple[Path, Path]:
    """Two folders with three images of the same names."""
    for name in ("b.png", "a.png", "scene/c.png"):
        write_pair(tmp_path / "in" / name, tmp_path / "out" / name)
    return tmp_path / "in", tmp_path / "out"


def test_images_are_paired_by_relative_path_without_suffix(
    folders: tuple[Path, Path], write_pair: Callable[..., None]
) -> None:
    blurred, sharp = folders
    write_pair(blurred / "d.JPG", sharp / "d.png")
    (blurred / "notes.txt").write_text("no image")
    (blurred / "._a.png").write_text("left by another system")
    pairs = pair_folders(blurred, sharp)
    assert [pair.name for pair in pairs] == ["a", "b", "d", "scene/c"]
    assert [pair.sequence for pair in pairs] == ["", "", "", "scene"]
    assert pairs[2] == Pair("d", blurred / "d.JPG", sharp / "d.png")


def test_missing_or_empty_folder_is_reported(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no folder {tmp_path / 'nowhere'}"):
        pair_folders(folders[0], tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path / 'empty'} contains no image"):
        pair_folders(tmp_path / "empty", folders[1])


def test_files_without_partner_are_reported(
    folders: tuple[Path, Path], write_pair: Callable[..., None], tmp_path: Path
) -> None:
    blurred, sharp = folders
    (sharp / "b.png").unlink()
    with pytest.raises(UserError, match=rf"{blurred / 'b.png'} without a partner in {sharp}"):
        pair_folders(blurred, sharp)
    for number in range(5):
        write_pair(sharp / f"more{number}.png", tmp_path / "elsewhere" / f"{number}.png")
    (blurred / "b.png").unlink()
    with pytest.raises(UserError, match=r"more0.*more2\.png and 2 more \(5 in all\) without a partner"):
        pair_folders(blurred, sharp)


def test_same_folder_for_both_is_rejected(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Training on identical pairs would look perfect."""
    link = tmp_path / "link"
    link.symlink_to(folders[0], target_is_directory=True)
    for same in (folders[0], link, folders[0] / ".." / "in"):
        with pytest.raises(UserError, match="two different folders"):
            pair_folders(folders[0], same)


def test_two_files_with_the_same_name_are_rejected(folders: tuple[Path, Path]) -> None:
    shutil.copy(folders[0] / "a.png", folders[0] / "a.bmp")
    with pytest.raises(UserError, match="have the same name"):
        pair_folders(*folders)


def test_gopro_layout(gopro: Path) -> None:
    pairs = find_pairs(gopro, "train")
    assert len(pairs) == 12 and len({pair.name for pair in pairs}) == 12
    assert pairs[0].name == "GOPRtrain_00/000001" and pairs[0].sequence == "GOPRtrain_00"
    assert pairs[0].blurred == gopro / "train" / "GOPRtrain_00" / "blur" / "000001.png"
    assert pairs[0].sharp == gopro / "train" / "GOPRtrain_00" / "sharp" / "000001.png"
    assert [pair.name for pair in pairs] == sorted(pair.name for pair in pairs)


def test_gopro_with_two_kinds_of_blur_requires_a_selection(gopro: Path) -> None:
    """Results on the two kinds are not comparable."""
    for sequence in (gopro / "test").iterdir():
        shutil.copytree(sequence / "blur", sequence / "blur_gamma")
    with pytest.raises(UserError, match=r"data\.blur=blur or data\.blur=blur_gamma"):
        find_pairs(gopro, "test")
    for blur in ("blur", "blur_gamma"):
        pairs = find_pairs(gopro, "test", blur)
        assert len(pairs) == 4 and {pair.blurred.parent.name for pair in pairs} == {blur}


def test_gopro_with_different_kinds_of_blur_per_sequence_is_rejected(gopro: Path) -> None:
    first = sorted((gopro / "test").iterdir())[0]
    (first / "blur").rename(first / "blur_gamma")
    with pytest.raises(UserError, match="two kinds of blur"):
        find_pairs(gopro, "test")
    with pytest.raises(UserError, match=r"no folder 'blur' but \['blur_gamma'\]"):
        find_pairs(gopro, "test", "blur")


@pytest.mark.parametrize(("lost", "message"), [("sharp", "no folder 'sharp'"), ("blur", "none of blur, blur_gamma")])
def test_incomplete_gopro_is_rejected(gopro: Path, lost: str, message: str) -> None:
    shutil.rmtree(gopro / "train" / "GOPRtrain_02" / lost)
    with pytest.raises(UserError, match=rf"GOPRtrain_02 .*{message}.*complete the download"):
        find_pairs(gopro, "train")


def test_reds_layout_with_other_degradations(reds: Path) -> None:
    shutil.copytree(reds / "train" / "train_blur", reds / "train" / "train_blur_comp")
    pairs = find_pairs(reds, "train")
    assert [pair.name for pair in pairs[:2]] == ["000/00000000", "000/00000001"]
    assert {pair.sequence for pair in pairs} == {"000", "001"}
    assert {pair.blurred.parts[-3] for pair in pairs} == {"train_blur"}
    with pytest.raises(UserError, match=r"read from train_blur, not from 'blur_gamma': remove data\.blur"):
        find_pairs(reds, "train", "blur_gamma")


def test_plain_layout(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(folders[0], tmp_path / "set" / "test" / "blurred")
    shutil.copytree(folders[1], tmp_path / "set" / "test" / "sharp")
    assert [pair.name for pair in find_pairs(tmp_path / "set", "test")] == ["a", "b", "scene/c"]
    assert has_split(tmp_path / "set", "test") and not has_split(tmp_path / "set", "train")


def test_unknown_layout_or_missing_split_is_reported(gopro: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"no folder {gopro / 'val'}: data.root must contain val/SEQUENCE"):
        find_pairs(gopro, "val")
    (tmp_path / "odd" / "train" / "pictures").mkdir(parents=True)
    with pytest.raises(UserError, match="none of the layouts"):
        find_pairs(tmp_path / "odd", "train")


def test_sizes_are_read_from_headers_and_must_agree(
    folders: tuple[Path, Path], write_pair: Callable[..., None], tmp_path: Path
) -> None:
    write_pair(folders[0] / "z.png", folders[1] / "z.png", 33, 17)
    pairs = pair_folders(*folders)
    assert check_sizes(pairs) == [(20, 28)] * 3 + [(33, 17)]
    write_pair(folders[0] / "a.png", tmp_path / "other.png", 20, 29)
    with pytest.raises(
        UserError, match=r"1 of 4 pairs differ in size, first .*a\.png \(29x20\) and .*a\.png \(28x20\)"
    ):
        check_sizes(pairs)


def test_empty_files_are_found_before_training(folders: tuple[Path, Path]) -> None:
    (folders[1] / "b.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.png is an empty file"):
        check_sizes(pair_folders(*folders))


def pairs_named(names: list[str]) -> list[Pair]:
    return [Pair(name, Path("blur") / name, Path("sharp") / name) for name in names]


@given(st.lists(st.integers(1, 6), min_size=2, max_size=25), st.floats(0.01, 0.99), st.randoms())
def test_sequences_are_either_for_training_or_validation(frames: list[int], share: float, random) -> None:
    """Neighbouring frames are nearly equal, so a sequence in both would invalidate the validation."""
    pairs = pairs_named([f"seq{s:02d}/{f}" for s, count in enumerate(frames) for f in range(count)])
    kept, held = hold_out(pairs, share)
    assert sorted(p.name for p in kept + held) == sorted(p.name for p in pairs)
    assert kept and held
    assert not {p.sequence for p in kept} & {p.sequence for p in held}
    wanted = min(max(1, round(share * len(frames))), len(frames) - 1)
    assert len({p.sequence for p in held}) == wanted
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert {p.name for p in hold_out(shuffled, share)[1]} == {p.name for p in held}


def test_end_of_a_single_sequence_is_held_out() -> None:
    kept, held = hold_out(pairs_named([f"one/{f:02d}" for f in range(10)]), 0.2)
    assert [p.name for p in held] == ["one/08", "one/09"] and len(kept) == 8


def test_single_pair_cannot_be_split() -> None:
    with pytest.raises(UserError, match=r"data\.val_share=0"):
        hold_out(pairs_named(["only"]), 0.1)
