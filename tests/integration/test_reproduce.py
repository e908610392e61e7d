"""`sapnet reproduce`: training and rendering of studies, interruptions, launchers."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from sapnet.configs import EXPERIMENTS
from sapnet.reporting.runs import RunStore
from sapnet.reporting.saved_results import read_table
from sapnet.reporting.study import read_study
from tests.integration.conftest import ROOT, run

pytestmark = pytest.mark.slow


def folder_of(root, table, row, **more):
    """Return the folder of a row's run at scale smoke."""
    study = read_study(EXPERIMENTS / f"{table}.yaml", "smoke")
    return RunStore(root / "runs").folder(study.overrides(row, 0), **more)


def test_a_study_is_trained_once_and_rendered(tmp_path):
    arguments = [
        "sapnet",
        "reproduce",
        "table=controls",
        "scale=smoke",
        "row=NU-oracle",
        f"root={tmp_path}/out",
        "seeds=[0]",
    ]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "controls" / "smoke"
    table = (folder / "table.md").read_text()
    assert "SMOKE" in table and "| NU-random | no result yet" in table
    assert (folder / "table.csv").read_text().startswith("row,")
    lines = {line["row"]: line for line in json.loads((folder / "table.json").read_text())["lines"]}
    assert lines["NU-oracle"]["images"] == 3
    checkpoint = folder_of(tmp_path / "out", "controls", "NU-oracle") / "checkpoints" / "last.ckpt"
    modified = checkpoint.stat().st_mtime_ns
    assert run(*arguments, cwd=tmp_path).returncode == 0
    assert checkpoint.stat().st_mtime_ns == modified


def test_kept_results_are_not_trained_again(tmp_path):
    """The tables are the same in another folder."""
    arguments, kept = ["sapnet", "reproduce", "table=1", "scale=smoke", "row=Ours_u_b"], f"results={tmp_path}/kept"
    done = run(*arguments, kept, f"root={tmp_path}/out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = [line["image"] for line in read_table(tmp_path / "kept" / "table1_smoke_images.csv")]
    assert len(names) == 3 and names == sorted(names)
    again = run(*arguments, kept, f"root={tmp_path}/elsewhere", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    for name in ("table.md", "table.csv", "runs.csv", "images.csv"):
        here, there = (tmp_path / root / "table1" / "smoke" / name for root in ("elsewhere", "out"))
        assert here.read_bytes() == there.read_bytes(), name
    assert "| Ours_u_b | no result" not in done.stdout
    assert not list((tmp_path / "elsewhere").glob("runs/*")), "nothing is trained again"
    part = run(*arguments, kept, f"root={tmp_path}/part", "seeds=[1]", cwd=tmp_path)
    assert part.returncode == 1 and "leave out seeds, overrides" in part.stderr.splitlines()[-1]


def test_tables_share_runs_and_may_test_on_other_data(tmp_path):
    """Ours_nu of Table 1 is NU of Table 5, which tests on another synthetic set at this scale."""
    root = tmp_path / "out"
    arguments = ["scale=smoke", f"root={root}"]
    assert run("sapnet", "reproduce", "table=1", "row=Ours_nu", *arguments, cwd=tmp_path).returncode == 0
    checkpoint = folder_of(root, "table1", "Ours_nu") / "checkpoints" / "last.ckpt"
    modified = checkpoint.stat().st_mtime_ns
    done = run("sapnet", "reproduce", "table=5", "row=NU", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((root / "runs").iterdir())) == 1 and checkpoint.stat().st_mtime_ns == modified
    lines = {line["row"]: line for line in json.loads((root / "table5" / "smoke" / "table.json").read_text())["lines"]}
    assert lines["NU"]["images"] == 4, "Table 1 tests on 3 images, Table 5 on 4"


def test_missing_data_of_the_paper_scale_is_a_user_error(tmp_path):
    arguments = ["sapnet", "reproduce", "table=6", "scale=paper", "row=SRN_U", f"root={tmp_path}/out"]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1 and "data_root=FOLDER" in done.stderr.splitlines()[-1]
    done = run(*arguments, f"data_root={tmp_path}/none", cwd=tmp_path)
    assert done.returncode == 1 and "GOPRO_Large" in done.stderr.splitlines()[-1]


def test_a_failed_training_is_not_done(tmp_path):
    arguments = ["sapnet", "reproduce", "table=controls", "scale=smoke", "row=U", f"root={tmp_path}/out", "seeds=[0]"]
    done = run(*arguments, 'overrides=["data.crop=512"]', cwd=tmp_path)
    assert done.returncode == 1 and "crop" in done.stderr.splitlines()[-1]
    folder = tmp_path / "out" / "controls" / "smoke"
    assert "| U | no result yet" in (folder / "table.md").read_text()
    assert not list((tmp_path / "out" / "runs").glob("*/done.json"))
    assert run(*arguments, cwd=tmp_path).returncode == 0
    assert "no result yet" not in (folder / "table.md").read_text().split("| U |")[1].split("|")[0]


def test_a_killed_study_is_resumed(tmp_path):
    """The training continues without its parent process; the second start waits for it."""
    arguments = ["table=controls", "scale=smoke", "row=U", f"root={tmp_path}/out", "seeds=[0]"]
    longer = 'overrides=["steps=600","validate_every=300"]'
    command = [sys.executable, "-m", "sapnet", "reproduce", *arguments, longer]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as study:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "out").glob("runs/*/checkpoints/last.ckpt")):
            assert time.monotonic() < deadline and study.poll() is None
            time.sleep(0.05)
        study.kill()
    assert not list((tmp_path / "out").glob("runs/*/done.json"))
    done = run("sapnet", "reproduce", *arguments, longer, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    with open(folder / "metrics.csv") as file:
        steps = [int(line["generator_steps"]) for line in csv.DictReader(file) if line["train/loss"]]
    assert steps == sorted(set(steps)) and steps[-1] == 600
    assert len((folder / "results.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_a_checkpoint_and_ends_the_study(tmp_path, signum, code):
    """The row is then resumed."""
    arguments = ["table=controls", "scale=smoke", f"root={tmp_path}/out", "seeds=[0]", "row=U"]
    longer = 'overrides=["steps=150","validate_every=150","trainer.log_every_n_steps=1"]'
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    reset = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - children of background jobs ignore it
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "preexec_fn": reset}
    study = subprocess.Popen(
        [sys.executable, "-m", "sapnet", "reproduce", *arguments, longer], cwd=tmp_path, env=environment, **pipes
    )
    deadline = time.monotonic() + 240
    while not list((tmp_path / "out").glob("runs/*/metrics.csv")):
        assert time.monotonic() < deadline and study.poll() is None, study.communicate()
        time.sleep(0.05)
    study.send_signal(signum)
    out, error = study.communicate(timeout=240)
    assert study.returncode == code and "Traceback" not in error, error
    sentence = "0 of 1 runs have ended; the same command continues with the others."
    assert error.splitlines()[-1].endswith(sentence)
    assert out.count("last.ckpt holds step") == 1, out
    saved = list((tmp_path / "out").glob("runs/*/checkpoints/last.ckpt"))
    assert len(saved) == 1 and not list((tmp_path / "out").glob("runs/*/done.json"))
    if signum == signal.SIGTERM:
        assert run("sapnet", "reproduce", *arguments, longer, cwd=tmp_path).returncode == 0
        (folder,) = (tmp_path / "out" / "runs").iterdir()
        assert (folder / "done.json").is_file()
        with open(folder / "metrics.csv") as file:
            steps = [int(line["generator_steps"]) for line in csv.DictReader(file) if line["train/loss"]]
        assert steps == list(range(1, 151)), "no step is repeated"


@pytest.mark.parametrize("launcher", [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]])
def test_rows_are_trained_by_a_hydra_launcher(launcher, tmp_path):
    """Several processes, and the local mode of the SLURM launcher."""
    arguments = ["--multirun", "table=1", "scale=smoke", "row=Ours_u_a,Ours_u_b", f"root={tmp_path}/out", "jobs=1"]
    done = run("sapnet", "reproduce", *arguments, f"hydra/launcher={launcher[0]}", *launcher[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for row in ("Ours_u_a", "Ours_u_b"):
        assert (folder_of(tmp_path / "out", "table1", row) / "done.json").is_file()
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2
