"""Training on one published set and evaluation on another."""

import json
from pathlib import Path

import pytest

from tests.contract.layouts import LAYOUTS, picture
from tests.integration.conftest import TINY, run

pytestmark = pytest.mark.slow


def test_results_record_partial_data_and_validation_on_test_images(tmp_path: Path) -> None:
    LAYOUTS["gopro"](tmp_path / "gopro", lambda path: picture(path, 40, 48))
    LAYOUTS["realblur_j"](tmp_path / "realblur", lambda path: picture(path, 40, 48))
    arguments = [argument for argument in TINY if not argument.startswith("data.")] + ["data.crop=32", "data.workers=0"]
    gopro = ["data=gopro", "data.root=gopro", "data.blur=blur", *arguments, "hydra.run.dir=run"]
    done = run("sapnet", "train", *gopro, cwd=tmp_path)
    assert done.returncode == 1
    assert "GoPro, train: 6 of 2103 pairs are in gopro (GOPR0372_07_00 2 of 100" in done.stderr.splitlines()[-1]
    assert "data.partial=true" in done.stderr and "Traceback" not in done.stderr
    done = run("sapnet", "train", *gopro, "data.partial=true", "data.validate_on_test=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == sorted(line["name"] for line in lines) and len(lines) == 4
    for line in lines:
        assert line["data"] == "gopro" and line["blur"] == "blur" and line["partial"] == "4 of 1111 pairs"
        assert line["validated_on"] == "test" and line["protocol"].startswith("uint8 RGB, psnr and ssim_matlab3d")
    realblur = ["data=realblur_j", "data.root=realblur", "data.partial=true", "hydra.run.dir=other"]
    done = run("sapnet", "evaluate", "checkpoint=run/checkpoints/best.ckpt", *realblur, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "other" / "results.jsonl").read_text().splitlines()]
    assert {line["name"] for line in lines} == {f"scene{n}/{k}" for n in ("001", "244_reflect") for k in (1, 10)}
    for line in lines:
        assert line["data"] == "realblur_j" and line["partial"] == "4 of 980 pairs" and line["validated_on"] == "test"
        assert "registered by ECC (OpenCV" in line["protocol"] and len(line["unregistered"]) == 4
    assert "could not be registered" in done.stdout
