"""Folders of the jobs of a sweep, and the table at its end."""

import csv
import shutil
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from sapnet.cli.sweeps import MAX_NAME, SweepReport, folder_name
from sapnet.configs import CONFIG_DIR
from sapnet.errors import UserError
from sapnet.evaluation.run_summary import write_summary


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("loss-l1_seed-0", "loss-l1_seed-0"),
        ("optim.optimizer.lr-1e-3_+x-1", "optim.optimizer.lr-1e-3_+x-1"),
        ("", "7"),
    ],
)
def test_short_names_are_the_overrides(overrides, name):
    assert folder_name(overrides, 7) == name


@pytest.mark.parametrize("overrides", ["channels-[4,4,6]", "data.root-/a/b c", "x-'a=b'", "x-" + 200 * "a", "-", "ä"])
def test_other_names_are_safe_short_and_distinct(overrides):
    name = folder_name(overrides, 7)
    assert name != overrides and len(name) <= MAX_NAME and not set(name) & set("/ ,=[]'\"")
    assert name == folder_name(overrides, 8) != folder_name(overrides + "b", 7)
    assert not name.startswith(".")


@pytest.fixture
def sweep(configs, command, tmp_path):
    """Call a sweep of the small command of the tests with the settings of the package; return output and folder."""
    shutil.copy(CONFIG_DIR / "hydra" / "default.yaml", configs / "hydra" / "default.yaml")
    app = (configs / "app.yaml").read_text().replace("  - override hydra/job_logging: none\n", "")
    app = app.replace("  - override hydra/help: sapnet\n", "  - hydra: default\n")
    (configs / "app.yaml").write_text(app)

    def task(config):
        folder = Path(HydraConfig.get().runtime.output_dir)
        (folder / "begun").touch()
        if config.optim.rate == 2:
            raise UserError("rate=2 is too high.")
        if config.optim.rate == 5:
            raise KeyboardInterrupt
        test = {"stage_psnr": [20.0, 21.25], "stage_ssim": [0.5, 0.75 + config.optim.rate / 100]}
        write_summary(folder, folder / "checkpoints" / "best.ckpt", 1.0, test, {"psnr": 20.0, "psnr_best": 22.5})

    def call(*arguments):
        code, out, err = command("--multirun", "input=x", *arguments, task=task)
        return code, out, err, tmp_path / "sweep"

    return call


def test_the_jobs_of_a_sweep_are_listed_at_its_end(sweep):
    code, out, err, folder = sweep("optim.rate=1,2", "optim.steps=10,20")
    assert code == 1 and err.endswith("The sweep has ended with a failed job: rate=2 is too high.\n")
    names = ["optim.rate-1_optim.steps-10", "optim.rate-1_optim.steps-20", "optim.rate-2_optim.steps-10"]
    assert all((folder / name / "begun").exists() for name in names)
    head, *lines = out[out.index("job  overrides") :].splitlines()
    assert " ".join(head.split()) == "job overrides state best val PSNR test PSNR test SSIM seconds"
    assert lines[0].split() == ["#0", "optim.rate=1", "optim.steps=10", "done", "22.50", "21.25", "0.7600", "0"]
    assert lines[2].split() == ["#2", "optim.rate=2", "optim.steps=10", "failed", "0"]
    (log,) = (folder / names[2]).glob("*.log")
    assert lines[4] == f"#2 failed: rate=2 is too high. (log: {log})" and "rate=2 is too high" in log.read_text()
    with open(folder / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["job"], row["optim.rate"], row["optim.steps"], row["state"]) for row in rows] == [
        ("0", "1", "10", "done"),
        ("1", "1", "20", "done"),
        ("2", "2", "10", "failed"),
        ("3", "2", "20", "failed"),
    ]
    assert (rows[0]["test_psnr"], rows[0]["val_psnr_best"], rows[2]["test_psnr"]) == ("21.25", "22.5", "")
    assert rows[2]["error"] == "rate=2 is too high." and rows[2]["folder"] == str(folder / names[2])


def test_a_larger_sweep_in_the_same_folder_meets_the_same_jobs(sweep):
    """Although the numbers of the jobs change, and settings that all jobs share."""
    _, _, _, folder = sweep("optim.rate=3", "optim.steps=10,20")
    assert {path.parent.name for path in folder.glob("*/begun")} == {"optim.steps-10", "optim.steps-20"}
    code, out, _, _ = sweep("optim.rate=4", "optim.steps=5,10,20")
    assert code == 0
    assert {path.parent.name for path in folder.glob("*/begun")} == {f"optim.steps-{n}" for n in (5, 10, 20)}
    assert "#2   optim.steps=20  done" in out and "optim.rate" not in out[out.index("job  overrides") :]


def test_a_sweep_of_one_job_is_numbered(sweep):
    """Of several overrides of a key the last one counts."""
    _, _, _, folder = sweep("optim.rate=1,3", "optim.rate=3")
    assert [path.parent.name for path in folder.glob("*/begun")] == ["0"]


def test_a_job_whose_process_has_died_is_listed(sweep, monkeypatch):
    monkeypatch.setattr(SweepReport, "on_job_end", lambda self, config, job_return, **_: None)
    _, out, _, _ = sweep("optim.rate=1,3")
    assert out.count("unfinished") == 4 and "#1 unfinished: interrupted, or its process was killed (log: " in out


def test_an_interrupted_sweep_lists_the_jobs_so_far(sweep):
    code, out, err, folder = sweep("optim.rate=1,5,6")
    assert (code, err) == (130, "Interrupted; saved files are kept in the run folder.\n")
    head, first, second, *_ = out[out.index("job  overrides") :].splitlines()
    assert (first.split()[2], second.split()[2]) == ("done", "unfinished") and "optim.rate=6" not in head
    assert len((folder / "summary.csv").read_text().splitlines()) == 3


def test_a_single_run_prints_no_table(configs, command, tmp_path):
    shutil.copy(CONFIG_DIR / "hydra" / "default.yaml", configs / "hydra" / "default.yaml")
    app = (configs / "app.yaml").read_text()
    (configs / "app.yaml").write_text(app.replace("  - override hydra/help: sapnet\n", "  - hydra: default\n"))
    assert command("input=x") == (0, "", "")
    assert not list(tmp_path.rglob(".jobs"))
