"""`sapnet compare` for Tables 1 and 2, with a checkpoint and folders of a few images."""

import json
from pathlib import Path

import pytest

from sapnet.configs import EXPERIMENTS
from sapnet.reporting.study import read_study
from tests.contract.layouts import LAYOUTS, picture
from tests.integration.conftest import run

pytestmark = pytest.mark.slow


def table(folder: Path, number: int) -> tuple[str, list[dict]]:
    outputs = folder / "outputs" / "compare" / f"table{number}"
    assert (outputs / "table.csv").read_text().startswith("set,row,origin,")
    return (outputs / "table.md").read_text(), json.loads((outputs / "table.json").read_text())["lines"]


def test_available_data_is_measured_once_and_missing_data_is_reported(tmp_path: Path, trained: Path) -> None:
    LAYOUTS["gopro"](tmp_path / "data" / "GOPRO_Large", lambda path: picture(path, 40, 48))
    LAYOUTS["hide"](tmp_path / "data" / "HIDE", lambda path: picture(path, 40, 48))
    checkpoint = trained / "checkpoints" / "last.ckpt"
    (tmp_path / "broken.ckpt").write_text("no checkpoint")
    arguments = ["data_root=data", f"checkpoints=[{checkpoint}]"]
    done = run("sapnet", "compare", "table=1", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text, lines = table(tmp_path, 1)
    assert text in done.stdout and "4 of 1111" in text and "not trained" in text
    (measured,) = (line for line in lines if "psnr_db" in line)
    folder = tmp_path / "outputs" / "compare" / "gopro" / measured["checkpoint"]
    results = (folder / "results.jsonl").read_bytes()
    made = json.loads((folder / "origin.json").read_text())
    assert [measured["commit"]] == made["commits"] and measured["command"] == made["command"]
    assert measured["images"] == len(results.splitlines()) == 4 and measured["psnr_ci95_low_db"] < measured["psnr_db"]
    done = run(
        "sapnet", "compare", "table=1", "data_root=data", f"checkpoints=[broken.ckpt,{checkpoint}]", cwd=tmp_path
    )
    assert done.returncode == 1 and "1 evaluations failed" in done.stderr.splitlines()[-1], done.stderr
    text, again = table(tmp_path, 1)
    assert "failed: given" in text and measured in again, "the other rows are rendered"
    assert (folder / "results.jsonl").read_bytes() == results, "not measured again"
    kept = tmp_path / "outputs" / "reproduce" / "runs" / "c0ffee"
    (kept / "checkpoints").mkdir(parents=True)
    (kept / "checkpoints" / "last.ckpt").write_bytes(checkpoint.read_bytes())
    overrides = read_study(EXPERIMENTS / "table2.yaml", "mini").overrides("Ours_nu", 0)
    (kept / "done.json").write_text(json.dumps({"overrides": overrides, "command": "sapnet train", "commit": "abc"}))
    done = run("sapnet", "compare", "table=2", "data_root=data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text, _ = table(tmp_path, 2)
    assert "| Ours_nu | 31.09 | 0.941 | mini scale, trained on synthetic, seed 0 | 4 of 2025 |" in text
    assert text.count("contains no folder RealBlur") == 2


def test_official_and_derived_images_are_separate(real_data: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "GOPRO_Large").symlink_to((real_data / "GOPRO_Large").resolve())
    arguments = ["table=1", "data_root=data", f"checkpoints=[{trained / 'checkpoints' / 'last.ckpt'}]"]
    done = run("sapnet", "compare", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text, lines = table(tmp_path, 1)
    official, derived = (line for line in lines if "psnr_db" in line)
    assert "2 of 1111" in text and official["set"] == "GoPro" and official["images"] == 2
    assert derived["images"] == 2 and derived["images_of"] is None and "derived" in derived["set"]
    assert official["input_psnr_db"] == pytest.approx(23.82, abs=0.01), "of frames 000001 and 000014"
