"""Training, evaluation and restoration of real photographs."""

import json

import pytest
from PIL import Image

from tests.integration.conftest import TINY, run

pytestmark = pytest.mark.slow
MODEL = [argument for argument in TINY if not argument.startswith("data.")]


@pytest.mark.parametrize("name", ["GOPRO_Large", "REDS_180p"])
def test_training_and_evaluation_on_a_folder(name, real_data, tmp_path):
    folder = ["data=folder", f"data.root={real_data / name}", "data.workers=0"]
    train = ["data.crop=64", "data.batch=2", "evaluate=false", f"hydra.run.dir={tmp_path}/train"]
    done = run("sapnet", "train", *MODEL, *folder, *train, "sampling=nu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "train" / "checkpoints" / "last.ckpt"
    done = run(
        "sapnet", "evaluate", f"checkpoint={checkpoint}", *folder, f"hydra.run.dir={tmp_path}/eval", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "eval" / "results.jsonl").read_text().splitlines()]
    assert len(lines) == {"GOPRO_Large": 4, "REDS_180p": 40}[name]
    assert all(15 < line["input_psnr"] < 45 for line in lines)


def test_a_whole_hd_photo_is_restored(real_data, trained_nu, tmp_path):
    photo = real_data / "GOPRO_Large" / "test" / "GOPR0384_11_00" / "blur" / "000001.png"
    arguments = [str(photo), "-o", "sharp.png", "-c", str(trained_nu / "checkpoints" / "last.ckpt"), "--show-points"]
    done = run("sapnet", "deblur", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("sharp.png", "sharp_points_2.png", "sharp_points_3.png"):
        assert Image.open(tmp_path / name).size == (1280, 720)
