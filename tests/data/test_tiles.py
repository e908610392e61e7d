"""Tiles: coverage, continuation and interruption."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sapnet.data import tiles
from sapnet.data.gopro import GoProData
from sapnet.data.images import read_image
from sapnet.data.tiles import Plan, cut_tiles, read_plan
from sapnet.errors import UserError
from tests.contract.layouts import LAYOUTS, OPTIONS, picture
from tests.contract.test_data_modules import compose


def test_hd_image_has_8_tiles_and_gopro_16824() -> None:
    plan = Plan(512, 256, "blur")
    assert plan.places(720, 1280) == [(y, x) for y in (0, 208) for x in (0, 256, 512, 768)]
    assert plan.tiles(720, 1280) * 2103 == 16824
    assert tiles.starts(10, 4, 3) == [0, 3, 6] and tiles.starts(11, 4, 3) == [0, 3, 6, 7]
    assert tiles.starts(4, 4, 1) == [0]
    with pytest.raises(UserError, match="does not fit"):
        tiles.starts(3, 4, 1)


@pytest.fixture
def hd(tmp_path: Path) -> Path:
    """Images of a tenth of HD, on which tiles of size 51 and step 25 correspond to 512 and 256 on HD."""
    root = tmp_path / "gopro"
    LAYOUTS["gopro"](root, lambda path: picture(path, 72, 128))
    return root


def test_tiles_cover_their_images(hd: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    assert cut_tiles(hd, out, 51, 25, "blur") == 6 * 10
    sequence, source = out / "train" / "GOPR0374_11_03", hd / "train" / "GOPR0374_11_03"
    for kind in ("blur", "sharp"):
        whole, seen = read_image(source / kind / "000002.png"), np.zeros((72, 128), bool)
        for path in sorted((sequence / kind).glob("000002_*.png")):
            y, x = (int(part) for part in path.stem.split("_")[1:])
            np.testing.assert_array_equal(read_image(path), whole[y : y + 51, x : x + 51])
            seen[y : y + 51, x : x + 51] = True
        assert seen.all()
    assert not (sequence / "blur_gamma").exists()


@pytest.mark.parametrize("name", ["gopro", "folder"])
def test_training_uses_tiles_and_test_whole_images(name: str, hd: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    cut_tiles(hd, out, 51, 25, "blur_gamma")
    data = compose(name, root=str(out), crop=32, workers=0, **(OPTIONS[name] | {"blur": "blur_gamma"}))
    data.setup("fit")
    data.setup("test")
    assert len(data.whole_images("train")) + len(data.whole_images("val")) == 60
    assert data.whole_images("train")[0]["sharp"].shape == (3, 51, 51)
    assert len(data.whole_images("test")) == 4 and data.whole_images("test")[0]["sharp"].shape == (3, 72, 128)


def test_gopro_expects_the_tiles_of_the_complete_set(tmp_path: Path) -> None:
    """An interrupted run leaves an incomplete set."""
    plan = Plan(512, 256, "blur")
    tiles._begin(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    data = GoProData(tmp_path)
    assert sum(data.expected("train").values()) == 16824 and sum(data.expected("test").values()) == 1111


def test_only_missing_tiles_are_cut(hd: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    cut_tiles(hd, out, 51, 25, "blur")
    files = sorted((out / "train").rglob("*.png"))
    content = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    for path in files[::7]:
        path.unlink()
    assert cut_tiles(hd, out, 51, 25, "blur") == 60
    assert sorted((out / "train").rglob("*.png")) == files
    assert all(path.read_bytes() == content[path][0] for path in files)
    assert all(path.stat().st_mtime_ns == content[path][1] for path in set(files) - set(files[::7]))


def test_tiles_with_other_settings_are_rejected(hd: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    cut_tiles(hd, out, 51, 25, "blur")
    for size, step, blur in ((64, 25, "blur"), (51, 51, "blur"), (51, 25, "blur_gamma")):
        with pytest.raises(UserError, match=r"contains tiles of size 51 and step 25 from 'blur', not of"):
            cut_tiles(hd, out, size, step, blur)
    with pytest.raises(UserError, match="contains other files than tiles"):
        cut_tiles(hd, hd, 51, 25, "blur")
    with pytest.raises(UserError, match=r"a tile of 512 pixels does not fit"):
        cut_tiles(hd, tmp_path / "new", blur="blur")
    with pytest.raises(UserError, match=r"--step is 60"):
        cut_tiles(hd, tmp_path / "new", 51, 60, "blur")
    assert not (tmp_path / "new").exists()
    (out / "tiles.json").write_text("{")
    with pytest.raises(UserError, match=r"tiles\.json is damaged"):
        cut_tiles(hd, out, 51, 25, "blur")


def command(root: Path, out: Path) -> list[str]:
    arguments = ("--size", "51", "--step", "4", "--blur", "blur", "--workers", "2")
    return [sys.executable, "-m", "sapnet", "tiles", str(root), str(out), *arguments]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    yield os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.slow
def test_killed_command_is_continued_with_the_same_tiles(hd: Path, tmp_path: Path, environment: dict) -> None:
    """Files that exist after the kill are complete."""
    out = tmp_path / "tiles"
    process = subprocess.Popen(
        command(hd, out), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(list(out.rglob("*.png"))) < 20 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for path in (out / "train").rglob("*.png"):
        if not path.name.startswith("."):
            assert read_image(path).shape == (51, 51, 3)
    done = subprocess.run(command(hd, out), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "882 tiles of 51x51" in done.stdout
    assert cut_tiles(hd, tmp_path / "other", 51, 4, "blur") == 882 == 6 * Plan(51, 4, "blur").tiles(72, 128)
    ours, other = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.png")} for f in (out, tmp_path / "other"))
    assert {name: data for name, data in ours.items() if not name.name.startswith(".")} == other


def test_command_reports_errors_in_one_line(tmp_path: Path, environment: dict) -> None:
    arguments = [sys.executable, "-m", "sapnet", "tiles", str(tmp_path / "absent"), str(tmp_path / "out")]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()
