"""The published benchmarks: whole or refused, one kind of blur, checked file by file, cut into tiles."""

import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from sapnet.data import tiles
from sapnet.data.benchmark import BenchmarkData
from sapnet.data.check import as_text, check
from sapnet.data.folder import FolderData
from sapnet.data.generated import SyntheticData
from sapnet.data.gopro import GoProData
from sapnet.data.hide import HideData
from sapnet.data.images import read_image, write_image
from sapnet.data.realblur import RealBlurData
from sapnet.data.reds import RedsData
from sapnet.data.tiles import Plan, cut_tiles, read_plan
from sapnet.errors import UserError
from tests.contract.layouts import LAYOUTS, OPTIONS, picture
from tests.contract.test_data_modules import compose

BENCHMARKS = {
    "gopro": GoProData,
    "hide": HideData,
    "realblur_j": RealBlurData,
    "realblur_r": RealBlurData,
    "reds": RedsData,
}
TRAIN_AND_TEST = {"gopro": (2103, 1111), "hide": (6397, 2025), "realblur_j": (3758, 980), "reds": (24000, 3000)}


class Linker:
    """Makes an image by a link to one file, so that whole data sets take a second."""

    def __init__(self, folder: Path):
        self.source = folder / "one.png"
        write_image(self.source, np.zeros((8, 8, 3), np.uint8))

    def __call__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(self.source, path)


def whole_gopro(root: Path, write: Callable[[Path], None]) -> None:
    for split, sequences in GoProData.published.items():
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
def test_the_whole_set_is_taken_and_one_image_less_is_not(name: str, tmp_path: Path) -> None:
    """The counts that the field reports on, and a download that stopped early."""
    train, test = TRAIN_AND_TEST[name]
    counts = {split: compose(name).published[split] for split in ("train", "test")}
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


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_part_is_refused_with_what_is_missing_unless_accepted(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path / name)
    options = OPTIONS[name] | {"root": str(tmp_path / name), "crop": 8, "workers": 0}
    title = BENCHMARKS[name].title if hasattr(BENCHMARKS[name], "title") else "RealBlur"
    with pytest.raises(UserError, match=rf"{title}.*, train: \d+ of \d+ pairs are in .*{name}") as refused:
        compose(name, **(options | {"partial": False})).setup("fit")
    if name == "gopro":
        assert "GOPR0372_07_00 2 of 100, GOPR0372_07_01 0 of 75" in str(refused.value)
    data = compose(name, **options)
    data.setup("test")
    assert data.remarks["partial"].startswith("4 of ")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_no_root_and_a_wrong_root_say_what_to_give(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root is not given: name the folder of "):
        compose(name).setup("test")
    with pytest.raises(UserError, match=r"there is no folder .*absent"):
        compose(name, root=str(tmp_path / "absent")).setup("test")
    with pytest.raises(UserError, match=str(tmp_path)):
        compose(name, root=str(tmp_path)).setup("test")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_shipped_config_holds_each_argument_with_its_default(name: str) -> None:
    path = Path(__file__).parents[2] / "conf" / "data" / f"{name}.yaml"
    config = OmegaConf.to_container(OmegaConf.create({"data": OmegaConf.load(path)}), resolve=True)["data"]
    kind = BENCHMARKS[name]
    own = {**inspect.signature(BenchmarkData).parameters, **inspect.signature(kind).parameters}
    own.pop("options", None)
    assert config.pop("_target_") == f"{kind.__module__}.{kind.__qualname__}"
    assert config.keys() == own.keys()
    assert config.pop("name") == name and config.pop("kind", "J") in "JR"
    assert config == {key: own[key].default for key in config}


def test_two_kinds_of_blur_must_be_chosen_between_and_are_named_in_results(tmp_path: Path) -> None:
    """The most repeated question of the field; `blur` and `blur_gamma` are never to be mixed up."""
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
def test_a_realblur_list_in_another_form_is_refused_by_its_line(line: str, tmp_path: Path) -> None:
    LAYOUTS["realblur_j"](tmp_path)
    path = tmp_path / "RealBlur_J_test_list.txt"
    path.write_text(path.read_text() + line.replace("FOLDER", "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"))
    with pytest.raises(UserError, match=r"RealBlur_J_test_list\.txt, line 5 is not "):
        compose("realblur_j", root=str(tmp_path), partial=True).find("test")


def test_realblur_needs_its_list_and_j_is_not_r(tmp_path: Path) -> None:
    LAYOUTS["realblur_j"](tmp_path)
    with pytest.raises(UserError, match=r"cannot read .*RealBlur_R_test_list\.txt, which says what"):
        compose("realblur_r", root=str(tmp_path)).find("test")
    (tmp_path / "RealBlur_R_test_list.txt").write_text((tmp_path / "RealBlur_J_test_list.txt").read_text())
    with pytest.raises(UserError, match="line 1 is not"):
        compose("realblur_r", root=str(tmp_path)).find("test")
    with pytest.raises(UserError, match=r"data\.kind=X"):
        RealBlurData("X")


def test_reds_unpacked_by_hand_is_found_too(tmp_path: Path) -> None:
    names = LAYOUTS["reds"](tmp_path)
    for folder in ("val_blur", "val_sharp"):
        (tmp_path / "val" / folder).rename(tmp_path / folder)
    data = compose("reds", root=str(tmp_path), partial=True)
    assert [pair.name for pair in data.find("test")] == names["test"]


def test_a_hide_without_its_sharp_images_is_refused(tmp_path: Path) -> None:
    LAYOUTS["hide"](tmp_path)
    (tmp_path / "GT" / "clos1.png").unlink()
    with pytest.raises(UserError, match=r"clos1\.png without a partner in .*GT"):
        compose("hide", root=str(tmp_path), partial=True).find("test")


# --- checking a data set -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*BENCHMARKS, "folder"])
def test_a_report_counts_pairs_and_decodes_every_file(name: str, tmp_path: Path) -> None:
    names = LAYOUTS[name](tmp_path)
    data = compose(name, root=str(tmp_path), **{k: v for k, v in OPTIONS[name].items() if k != "partial"})
    reports = {report.split: report for report in check(data)}
    assert reports.keys() == {"train", "test"}
    for split, report in reports.items():
        assert sum(report.pairs.values()) == len(names[split]) and report.files == 2 * len(names[split])
        assert report.sizes == {(24, 32): len(names[split])}
        assert all("published pairs" in problem for problem in report.problems)
        assert bool(report.problems) == (name != "folder")
    text = as_text(name, list(reports.values()))
    assert f"{name}, test: 4" in text and "32x24 (4 pairs)" in text
    if name == "gopro":
        assert "GOPR0384_11_00                 2         100   <-" in text and "1111 pairs" in text


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, FolderData]:
    LAYOUTS["folder"](tmp_path)
    return tmp_path / "test" / "GOPR0384_11_00", FolderData(tmp_path, blur="blur")


def problems(data: FolderData) -> list[str]:
    return [problem for report in check(data) for problem in report.problems]


def test_a_truncated_file_is_found_by_name(folder: tuple[Path, FolderData]) -> None:
    sequence, data = folder
    victim = sequence / "sharp" / "000002.png"
    victim.write_bytes(victim.read_bytes()[:-20])
    assert problems(data) == [f"{victim} is damaged or ends early: copy or download it again."]


def test_sizes_that_differ_are_found(folder: tuple[Path, FolderData]) -> None:
    sequence, data = folder
    picture(sequence / "blur" / "000001.png", height=20)
    (problem,) = problems(data)
    assert "000001.png is 32x20" in problem and "32x24" in problem


def test_an_image_that_is_its_own_target_is_found(folder: tuple[Path, FolderData]) -> None:
    sequence, data = folder
    (sequence / "blur" / "000001.png").write_bytes((sequence / "sharp" / "000001.png").read_bytes())
    assert problems(data) == ["1 pairs show one image twice, nothing blurred, first GOPR0384_11_00/000001"]


def test_a_missing_partner_is_found_and_the_other_files_are_still_decoded(folder: tuple[Path, FolderData]) -> None:
    sequence, data = folder
    (sequence / "sharp" / "000002.png").unlink()
    victim = sequence / "blur" / "000001.png"
    victim.write_bytes(victim.read_bytes()[:40])
    partner, damaged = problems(data)
    assert "000002.png without a partner" in partner and str(victim) in damaged


@pytest.mark.slow
def test_the_command_ends_with_1_on_problems_and_with_0_without(tmp_path: Path) -> None:
    from tests.integration.conftest import run

    LAYOUTS["gopro"](tmp_path / "set")
    words = ("sapnet.check_data", "data.root=set", "data.blur=blur", "hydra.run.dir=out")
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "folder, train: 6 pairs, 12 files decoded" in done.stdout and "problems: 0" in done.stdout
    done = run(*words, "data=gopro", cwd=tmp_path)
    assert done.returncode == 1 and "published" in done.stdout and "Traceback" not in done.stderr
    assert "GOPR0862_11_00                 2          77   <-" in done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith("gopro: the report above names 2 problems")
    done = run("sapnet.check_data", "data=synthetic", cwd=tmp_path)
    assert done.returncode == 1 and "nothing to check" in done.stderr


# --- tiles ---------------------------------------------------------------------------------------------------------


def test_the_field_s_tiles_are_8_of_an_hd_image_and_16824_of_gopro() -> None:
    plan = Plan(512, 256, "blur")
    assert plan.places(720, 1280) == [(y, x) for y in (0, 208) for x in (0, 256, 512, 768)]
    assert plan.tiles(720, 1280) * 2103 == 16824
    assert tiles.starts(10, 4, 3) == [0, 3, 6] and tiles.starts(11, 4, 3) == [0, 3, 6, 7]
    assert tiles.starts(4, 4, 1) == [0]
    with pytest.raises(UserError, match="does not fit"):
        tiles.starts(3, 4, 1)


@pytest.fixture
def hd(tmp_path: Path) -> Path:
    """A tenth of HD, so that tiles of 51 every 25 pixels fall as 512 every 256 do."""
    root = tmp_path / "gopro"
    LAYOUTS["gopro"](root, lambda path: picture(path, 72, 128))
    return root


def test_tiles_are_pieces_of_their_images_that_cover_them(hd: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    assert cut_tiles(hd, out, 51, 25, "blur") == 6 * 10
    sequence, source = out / "train" / "GOPR0374_11_03", hd / "train" / "GOPR0374_11_03"
    for kind in ("blur", "sharp"):
        whole, seen = read_image(source / kind / "000002.png"), np.zeros((72, 128), bool)
        for path in sorted((sequence / kind).glob("000002_*.png")):
            y, x = (int(word) for word in path.stem.split("_")[1:])
            np.testing.assert_array_equal(read_image(path), whole[y : y + 51, x : x + 51])
            seen[y : y + 51, x : x + 51] = True
        assert seen.all()
    assert not (sequence / "blur_gamma").exists()


@pytest.mark.parametrize("name", ["gopro", "folder"])
def test_training_reads_tiles_and_testing_whole_images(name: str, hd: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    cut_tiles(hd, out, 51, 25, "blur_gamma")
    data = compose(name, root=str(out), crop=32, workers=0, **(OPTIONS[name] | {"blur": "blur_gamma"}))
    data.setup("fit")
    data.setup("test")
    assert len(data.whole_images("train")) + len(data.whole_images("val")) == 60
    assert data.whole_images("train")[0]["sharp"].shape == (3, 51, 51)
    assert len(data.whole_images("test")) == 4 and data.whole_images("test")[0]["sharp"].shape == (3, 72, 128)


def test_gopro_expects_the_tiles_of_its_whole_set(tmp_path: Path) -> None:
    """A cutting that was interrupted is a partial set."""
    plan = Plan(512, 256, "blur")
    tiles._begin(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    data = GoProData(tmp_path)
    assert sum(data.expected("train").values()) == 16824 and sum(data.expected("test").values()) == 1111


def test_what_is_cut_is_not_cut_again_and_what_is_missing_is(hd: Path, tmp_path: Path) -> None:
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


def test_tiles_of_two_kinds_do_not_mix(hd: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    cut_tiles(hd, out, 51, 25, "blur")
    for size, step, blur in ((64, 25, "blur"), (51, 51, "blur"), (51, 25, "blur_gamma")):
        with pytest.raises(UserError, match=r"holds tiles of 51 pixels every 25 from 'blur', and"):
            cut_tiles(hd, out, size, step, blur)
    with pytest.raises(UserError, match="holds something other than tiles"):
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
    words = ("--size", "51", "--step", "4", "--blur", "blur", "--workers", "2")
    return [sys.executable, "-m", "sapnet.data.tiles", str(root), str(out), *words]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    yield os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.slow
def test_the_command_killed_in_between_goes_on_to_the_same_tiles(hd: Path, tmp_path: Path, environment: dict) -> None:
    """Every file that is there after the kill is whole."""
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
    ours, theirs = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.png")} for f in (out, tmp_path / "other"))
    assert {name: data for name, data in ours.items() if not name.name.startswith(".")} == theirs


def test_the_command_refuses_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiles.main([str(tmp_path / "absent"), str(tmp_path / "out")]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_generated_data_has_nothing_to_say_beside_its_name() -> None:
    assert SyntheticData().remarks == {} and SyntheticData().protocol == "standard"
