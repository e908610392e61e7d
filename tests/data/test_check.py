"""Validation of whole data sets."""

from pathlib import Path

import pytest

from sapnet.data.check import as_text, check
from sapnet.data.folder import FolderData
from tests.contract.layouts import LAYOUTS, OPTIONS, picture
from tests.contract.test_data_modules import compose


@pytest.mark.parametrize("name", LAYOUTS)
def test_report_counts_pairs_and_decodes_every_file(name: str, tmp_path: Path) -> None:
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


def test_truncated_file_is_found(folder: tuple[Path, FolderData]) -> None:
    sequence, data = folder
    victim = sequence / "sharp" / "000002.png"
    victim.write_bytes(victim.read_bytes()[:-20])
    assert problems(data) == [f"{victim} is damaged or truncated: copy or download it again."]


def test_different_sizes_are_found(folder: tuple[Path, FolderData]) -> None:
    sequence, data = folder
    picture(sequence / "blur" / "000001.png", height=20)
    (problem,) = problems(data)
    assert "000001.png is 32x20" in problem and "32x24" in problem


def test_equal_images_of_a_pair_are_found(folder: tuple[Path, FolderData]) -> None:
    sequence, data = folder
    (sequence / "blur" / "000001.png").write_bytes((sequence / "sharp" / "000001.png").read_bytes())
    assert problems(data) == ["1 pairs have equal blurred and sharp images, first GOPR0384_11_00/000001"]


def test_missing_partner_is_found_and_other_files_are_decoded(folder: tuple[Path, FolderData]) -> None:
    sequence, data = folder
    (sequence / "sharp" / "000002.png").unlink()
    victim = sequence / "blur" / "000001.png"
    victim.write_bytes(victim.read_bytes()[:40])
    partner, damaged = problems(data)
    assert "000002.png without a partner" in partner and str(victim) in damaged


@pytest.mark.slow
def test_exit_code_is_1_if_there_are_problems(tmp_path: Path) -> None:
    from tests.integration.conftest import run

    LAYOUTS["gopro"](tmp_path / "set")
    arguments = ("sapnet", "check-data", "data.root=set", "data.blur=blur", "hydra.run.dir=out")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "folder, train: 6 pairs, 12 files decoded" in done.stdout and "problems: 0" in done.stdout
    done = run(*arguments, "data=gopro", cwd=tmp_path)
    assert done.returncode == 1 and "published" in done.stdout and "Traceback" not in done.stderr
    assert "GOPR0862_11_00                 2          77   <-" in done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith("gopro: the report above names 2 problems")
    done = run("sapnet", "check-data", "data=synthetic", cwd=tmp_path)
    assert done.returncode == 1 and "nothing to check" in done.stderr
