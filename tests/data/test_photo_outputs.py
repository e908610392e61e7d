"""Which photos are restored, and where they are written."""

from pathlib import Path

import pytest

from sapnet.data.photo_outputs import PhotoPaths, check_points_targets, outputs_to_write, plan_outputs
from sapnet.errors import UserError


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with photos and other files."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.PNG", "notes.txt", "._a.jpg", "sub/a.jpg", "sub/deep/c.tif", ".cache/d.jpg", "film.mp4"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "photos" / "folder.png").mkdir()
    (tmp_path / "one.webp").touch()
    return tmp_path


def planned(*inputs: str, output: str = "out", **options) -> dict[str, str]:
    return {str(pair.source): str(pair.target) for pair in plan_outputs(inputs, output, **options)}


def test_one_image_is_written_to_a_file_or_into_a_folder(photos: Path) -> None:
    assert planned("one.webp", output="new/sharp.jpg") == {"one.webp": "new/sharp.jpg"}
    assert planned("one.webp", output="photos") == {"one.webp": "photos/one.png"}
    assert planned("one.webp", output="new/") == {"one.webp": "new/one.png"}
    assert not (photos / "new").exists()


def test_images_and_folders_are_written_to_one_folder(photos: Path) -> None:
    expected = {"photos/a.jpg": "out/a.png", "photos/b.PNG": "out/b.png"}
    assert planned("photos") == expected
    assert planned("photos", "one.webp") == expected | {"one.webp": "out/one.png"}


def test_folders_below_keep_their_structure(photos: Path) -> None:
    expected = {
        "photos/a.jpg": "out/a.png",
        "photos/b.PNG": "out/b.png",
        "photos/sub/a.jpg": "out/sub/a.png",
        "photos/sub/deep/c.tif": "out/sub/deep/c.png",
    }
    assert planned("photos", recursive=True) == expected


def test_outputs_below_the_input_are_no_inputs(photos: Path) -> None:
    (photos / "photos" / "sharp").mkdir()
    (photos / "photos" / "sharp" / "a.png").touch()
    assert "photos/sharp/a.png" not in planned("photos", output="photos/sharp", recursive=True)


def test_an_image_that_is_named_twice_is_restored_once(photos: Path) -> None:
    assert planned("photos/a.jpg", "photos", "./photos/a.jpg") == planned("photos")


REFUSED = {
    "an address": (["https://example.org/a.jpg"], "out", "address on the internet"),
    "another address": (["FTP://example.org/a.jpg", "photos"], "out", "address on the internet"),
    "no file": (["photos", "none.png"], "out", "none.png: there is no such image or folder"),
    "two inputs, one output": (["photos", "photos/sub/a.jpg"], "out", "photos/a.jpg and photos/sub/a.jpg would both"),
    "a file for a folder": (["photos"], "one.webp", "one.webp is a file, and photos is a folder"),
    "an image for several": (["one.webp", "photos/a.jpg"], "new.png", "there are 2 inputs: give a folder"),
    "an unknown format": (["one.webp"], "sharp.gif", "the output must end in .png"),
    "no format": (["one.webp"], "sharp", "or in a slash for a folder"),
    "a place without files": (["one.webp"], "/proc/none/a.png", "use another"),
    "a file in the way": (["one.webp"], "one.webp/a.png", "is a file, not a folder"),
    "the input itself": (["photos/b.PNG"], "photos/b.PNG", "never replaced"),
    "another input": (["one.webp", "photos/sub/a.jpg", "out/one.png"], "out", "out/one.png"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_plan_is_refused_in_one_sentence(case: str, photos: Path) -> None:
    inputs, output, words = REFUSED[case]
    if case == "another input":
        (photos / "out").mkdir()
        (photos / "out" / "one.png").touch()
    with pytest.raises(UserError, match=words) as error:
        plan_outputs(inputs, output)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    assert not (photos / "new").exists()


def test_a_folder_without_images_is_refused(photos: Path) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty contains no image .*give another folder"):
        plan_outputs(["empty"], "out")
    (photos / "empty" / "sub").mkdir()
    (photos / "empty" / "sub" / "a.png").touch()
    with pytest.raises(UserError, match="add --recursive"):
        plan_outputs(["empty"], "out")


def test_existing_outputs_are_refused_skipped_or_replaced(photos: Path) -> None:
    pairs = plan_outputs(["photos"], "out")
    assert outputs_to_write(pairs, overwrite=False, skip_existing=False) == pairs
    (photos / "out").mkdir()
    (photos / "out" / "a.png").touch()
    with pytest.raises(UserError, match=r"out/a.png exists: add --overwrite .* --skip-existing"):
        outputs_to_write(pairs, overwrite=False, skip_existing=False)
    assert outputs_to_write(pairs, overwrite=True, skip_existing=False) == pairs
    assert outputs_to_write(pairs, overwrite=False, skip_existing=True) == pairs[1:]


def test_pictures_of_points_replace_no_photo(tmp_path: Path) -> None:
    names = ("a.jpg", "a_points_2.jpg")
    pairs = [PhotoPaths(tmp_path / name, tmp_path / "out" / name.replace("jpg", "png")) for name in names]
    check_points_targets(pairs, [3])
    with pytest.raises(UserError, match=r"points of .*a.jpg to .*a_points_2.png"):
        check_points_targets(pairs, [2])
