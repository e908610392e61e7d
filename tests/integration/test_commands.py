"""Outputs of the commands, and their behaviour on invalid input."""

import csv
import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sapnet.provenance import KEYS
from tests.integration.conftest import TINY, run

pytestmark = pytest.mark.slow


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps_of(checkpoint) -> int:
    return torch.load(checkpoint, weights_only=True)["sapnet"]["generator_steps"]


def photo(path, height=20, width=30, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_training_writes_config_checkpoints_metrics_and_results(trained):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["steps"] == 3 and config["network"]["stem"] == 4, "resolved"
    assert (trained / "checkpoints" / "last.ckpt").is_file() and (trained / "checkpoints" / "best.ckpt").is_file()
    results = lines(trained / "results.jsonl")
    assert [line["name"] for line in results] == ["test/000000", "test/000001"]
    steps = {kind: steps_of(trained / "checkpoints" / f"{kind}.ckpt") for kind in ("best", "last")}
    assert steps["last"] == 3
    for line in results:
        assert len(line["stage_psnr"]) == 3
        assert (line["checkpoint_kind"], line["generator_steps"]) == ("best", steps["best"])
    with open(trained / "metrics.csv") as file:
        validated = [line for line in csv.DictReader(file) if line["val/psnr"]]
    best = max(validated, key=lambda line: float(line["val/psnr"]))
    assert [line["generator_steps"] for line in validated] == ["2", "3"], "the last step is validated"
    assert steps["best"] == int(best["generator_steps"])
    assert {line["model"] for line in results} == {
        "network=small sampling=uniform_network network.stem=4 network.channels=[4,4,6]"
    }
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["checkpoint"] == "checkpoints/best.ckpt" and summary["overrides"][:2] == [
        "steps=3",
        "validate_every=2",
    ]
    assert summary["stage_psnr"] == pytest.approx(np.mean([line["stage_psnr"] for line in results], axis=0))
    scores = [float(line["val/psnr"]) for line in validated]
    found = summary["validation"]
    assert (found["psnr_best"], found["psnr"]) == pytest.approx((max(scores), scores[-1]), abs=1e-4)
    assert (found["step_best"], found["step"]) == (steps["best"], 3)
    assert summary["provenance"] == results[0]["provenance"]
    origin = results[0]["provenance"]
    assert origin["command"].startswith("python -m sapnet train steps=3 ") and tuple(origin) == KEYS
    composed = (trained / ".hydra" / "config.yaml").read_bytes()
    assert origin["config_hash"] == hashlib.sha256(composed).hexdigest()[:12]
    assert list(trained.glob("panels/*.png"))
    assert "val/psnr" in (trained / "metrics.csv").read_text().splitlines()[0]


def test_an_interrupted_evaluation_is_resumed(trained, tmp_path):
    command_line = ["sapnet", "evaluate", f"checkpoint={trained}/checkpoints/best.ckpt", f"hydra.run.dir={tmp_path}"]
    command_line += [override for override in TINY if override.startswith("data.")]
    done = run(*command_line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"checkpoint: best, of step {steps_of(trained / 'checkpoints' / 'best.ckpt')}" in done.stdout + done.stderr
    first = lines(tmp_path / "results.jsonl")
    expected = lines(trained / "results.jsonl")
    for line, expected_line in zip(first, expected, strict=True):
        assert line["stage_psnr"] == pytest.approx(expected_line["stage_psnr"], abs=1e-9)
    # Interrupted after one image, in the middle of the next line.
    (tmp_path / "results.jsonl").write_text(json.dumps(first[0]) + "\n" + json.dumps(first[1])[:40])
    assert run(*command_line, cwd=tmp_path).returncode == 0
    resumed = lines(tmp_path / "results.jsonl")
    assert resumed[0] == first[0] and resumed[1]["stage_psnr"] == first[1]["stage_psnr"]


def test_a_repeated_evaluation_writes_only_missing_images(trained, tmp_path):
    (tmp_path / "results.jsonl").write_bytes((trained / "results.jsonl").read_bytes())
    command_line = ["sapnet", "evaluate", f"checkpoint={trained}/checkpoints/best.ckpt", f"hydra.run.dir={tmp_path}"]
    command_line += [*(override for override in TINY if override.startswith("data.")), "save_images=true"]
    done = run(*command_line, cwd=tmp_path)
    assert done.returncode == 0 and "nothing is evaluated again" in done.stdout + done.stderr, done.stderr
    assert (tmp_path / "results.jsonl").read_bytes() == (trained / "results.jsonl").read_bytes()
    (folder,) = (tmp_path / "images").iterdir()
    assert sorted(path.name for path in (folder / "test").iterdir()) == ["000000.png", "000001.png"]
    done = run(*command_line, "data.scene_seed=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = lines(tmp_path / "results.jsonl")[:2], lines(tmp_path / "results.jsonl")[2:]
    assert [line["name"] for line in first] == [line["name"] for line in second]
    assert first[0]["input_psnr"] != second[0]["input_psnr"], "other scenes with the same names"
    assert len(list((tmp_path / "images").iterdir())) == 2, "in separate folders"


def test_results_of_different_windows_are_separate(trained_nu, tmp_path):
    (tmp_path / "results.jsonl").write_bytes((trained_nu / "results.jsonl").read_bytes())
    command_line = ["sapnet", "evaluate", f"checkpoint={trained_nu}/checkpoints/best.ckpt", f"hydra.run.dir={tmp_path}"]
    done = run(
        *command_line, *(override for override in TINY if override.startswith("data.")), "window=32", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    whole, local = lines(tmp_path / "results.jsonl")[:2], lines(tmp_path / "results.jsonl")[2:]
    assert [line["window"] for line in whole + local] == [None, None, 32, 32]
    assert local[0]["model"].startswith("network=small sampling=nu policy=reinforce network.stem=4")
    for local_line, whole_line in zip(local, whole, strict=True):
        assert local_line["stage_psnr"] != whole_line["stage_psnr"]
        assert local_line["stage_psnr"] == pytest.approx(whole_line["stage_psnr"], abs=1)


def test_a_study_of_points_writes_numbers_a_picture_and_a_summary(trained_nu, tmp_path):
    """`study=true` is the study of the policy."""
    command_line = ["sapnet", "evaluate", f"checkpoint={trained_nu}/checkpoints/last.ckpt", f"hydra.run.dir={tmp_path}"]
    command_line += [override for override in TINY if override.startswith("data.")]
    done = run(*command_line, "study=points", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "points.json").read_text())
    assert result["images"] == 2 and result["points_db"].keys() == {"learned", "random", "extent", "none"}
    assert result["conclusion"] in done.stdout + done.stderr and "| no points |" in done.stdout + done.stderr
    assert len(result["signal_to_noise"]) == 4 and len(result["values"]) == 4 and not result["skipped"]
    own = [line["stage_psnr"][-1] for line in lines(tmp_path / "results.jsonl")]
    assert result["points_db"]["learned"]["psnr"] == pytest.approx(np.mean(own), abs=1e-9)
    assert Image.open(tmp_path / "points.png").size[0] > 1000
    assert not (tmp_path / "policy.json").exists()
    done = run(*command_line, "study=true", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "policy.json").is_file(), done.stderr


def test_deblur_writes_an_image_or_a_folder_of_them(trained, tmp_path):
    checkpoint = str(trained / "checkpoints" / "last.ckpt")
    source = photo(tmp_path / "photo.png")
    done = run("sapnet", "deblur", str(source), "-o", "sharp.png", "--checkpoint", checkpoint, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "sharp.png").size == (30, 20)
    photo(tmp_path / "many" / "a.png"), photo(tmp_path / "many" / "b.jpg", 17, 33)
    done = run("sapnet", "deblur", "many", "-o", "out", "-c", checkpoint, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    done = run("sapnet", "deblur", str(source), "-o", "w.png", "-c", checkpoint, "--window", "16", cwd=tmp_path)
    assert done.returncode == 0 and Image.open(tmp_path / "w.png").size == (30, 20), done.stderr
    done = run("sapnet", "deblur", "many", "-o", "out", "-c", checkpoint, cwd=tmp_path)
    assert done.returncode == 1 and "--overwrite" in done.stderr


def test_a_multirun_writes_one_folder_per_job_and_a_table(tmp_path):
    done = run(
        "sapnet", "train", "-m", "seed=0,1", *TINY, "evaluate=true", f"hydra.sweep.dir={tmp_path}/sweep", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "sweep" / "summary.csv") as file:
        rows = list(csv.DictReader(file))
    for seed, row in zip("01", rows, strict=True):
        folder = tmp_path / "sweep" / f"seed-{seed}"
        assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == int(seed)
        assert len(lines(folder / "results.jsonl")) == 2 and (folder / "checkpoints" / "last.ckpt").is_file()
        summary = json.loads((folder / "summary.json").read_text())
        assert f"seed={seed}" in summary["overrides"]
        assert (row["seed"], row["state"], row["folder"]) == (seed, "done", str(folder))
        assert float(row["test_psnr"]) == summary["stage_psnr"][-1]
        assert f"{summary['stage_psnr'][-1]:.2f}" in done.stdout


def test_two_processes_share_training_and_evaluation(tmp_path):
    """With `trainer=ddp` on CPUs each test image is restored by one of the processes."""
    command_line = [
        *TINY,
        "sampling=nu",
        "trainer=ddp",
        "trainer.devices=2",
        "data.test=5",
        f"hydra.run.dir={tmp_path}/run",
    ]
    done = run("sapnet", "train", *command_line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = [line["name"] for line in lines(tmp_path / "run" / "results.jsonl")]
    assert len(names) == len(set(names)) == 5
    assert done.stderr.count("mean of 5 images") + done.stdout.count("mean of 5 images") == 2


class Malicious:
    def __reduce__(self):
        import os

        return os.system, ("touch trace",)


USER_ERRORS = {
    "a missing folder": (["sapnet", "train", "data=folder", "data.root=nowhere"], "nowhere"),
    "an unknown key": (["sapnet", "train", "stepz=3"], "stepz"),
    "an unknown option": (["sapnet", "train", "data=gorpo"], "gorpo"),
    "no checkpoint given": (["sapnet", "evaluate"], "checkpoint=PATH"),
    "a missing checkpoint": (["sapnet", "evaluate", "checkpoint=absent.ckpt"], "absent.ckpt"),
    "a malicious pickle": (["sapnet", "evaluate", "checkpoint=malicious.ckpt"], "malicious.ckpt"),
    "not a photo": (["sapnet", "deblur", "noise.jpg", "-o", "o.png", "-c", "CKPT"], "noise.jpg"),
    "a truncated photo": (["sapnet", "deblur", "cut.jpg", "-o", "o.png", "-c", "CKPT"], "cut.jpg"),
    "images smaller than the crop": (["sapnet", "train", "data=folder", "data.root=small", "data.val_share=0"], "crop"),
    "an unknown study": (["sapnet", "evaluate", "checkpoint=CKPT", "study=pionts"], "study=pionts"),
    "a window without whole grids": (["sapnet", "evaluate", "checkpoint=CKPT", "window=250"], "multiple of 16"),
    "another architecture": (
        ["sapnet", "train", *TINY, "network.stem=5", "ckpt_path=CKPT"],
        "network.stem: 4 -> 5 cannot",
    ),
    "a setting that cannot change": (["sapnet", "train", *TINY, "loss=mse", "ckpt_path=CKPT"], "use loss.kind=l1"),
    "weights of another network": (
        ["sapnet", "train", *TINY, "network.stem=5", "init_from=CKPT"],
        "network.stem=4 (here 5)",
    ),
    "the key of an earlier version": (["sapnet", "train", "checkpoint=CKPT"], "did you mean ckpt_path?"),
}


@pytest.mark.parametrize("case", USER_ERRORS)
def test_a_user_error_ends_with_a_message(case, trained, tmp_path):
    """The message is one line without a stack trace, the exit code is not zero, and no output is written."""
    arguments, name = USER_ERRORS[case]
    (tmp_path / "malicious.ckpt").write_bytes(pickle.dumps(Malicious()))
    (tmp_path / "noise.jpg").write_bytes(b"not an image")
    complete = photo(tmp_path / "complete.jpg", 64, 64).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(complete[: len(complete) // 2])
    for kind in ("blur", "sharp"):
        for split in ("train", "test"):
            photo(tmp_path / "small" / split / "seq" / kind / "000001.png", 40, 40)
    arguments = [argument.replace("CKPT", f"{trained}/checkpoints/last.ckpt") for argument in arguments]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    output = done.stderr.strip().splitlines()
    assert name in output[-1] and "Traceback" not in done.stderr
    assert len([line for line in output if not line.startswith("folder: ")]) == 1, done.stderr
    assert not (tmp_path / "trace").exists() and not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    ("command", "option"),
    [("train", "ckpt_path=null"), ("evaluate", "checkpoint=null"), ("deblur", "--checkpoint"), ("demo", "steps=1200")],
)
def test_help_is_printed(command, option, tmp_path):
    done = run("sapnet", command, "--help", cwd=tmp_path)
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 5
    assert option in done.stdout


def test_the_demo_reports_the_value_of_its_points(tmp_path):
    done = run("sapnet", "demo", *TINY, "data.size=64", "picture_scenes=1", "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {"learned", "random", "none"} <= summary["points_db"].keys() and summary["steps"] == 3
    assert {"gain_db", "policy_auc_error", "policy_auc_extent"} <= summary.keys()
    assert f"{summary['seconds']:.3f} s per image" in done.stdout + done.stderr, "not the time of the whole run"
    assert summary["seconds"] < 1 < summary["run_seconds"] and summary["checkpoint_kind"] == "best"
    assert summary["policy"]["worth"]["conclusion"] in done.stdout + done.stderr
    assert (tmp_path / "out" / "demo.png").stat().st_size > 1000


def test_a_study_follows_the_training(tmp_path):
    command_line = [*TINY, "sampling=nu", "data.size=64", "study=map", "evaluate_checkpoint=last", "hydra.run.dir=out"]
    done = run("sapnet", "train", *command_line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line, *_) = lines(tmp_path / "out" / "results.jsonl")
    assert (line["checkpoint_kind"], line["generator_steps"]) == ("last", 3)
    result = json.loads((tmp_path / "out" / "policy.json").read_text())
    assert {row["truth"] for row in result["agreement"]} == {"error", "extent"}
    assert [row["inference"] for row in result["inference"]] == ["top", "dither", "draw"]
