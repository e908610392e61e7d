"""Sweeps: each job has its own folder, and a failed job does not stop the others."""

from pathlib import Path

import pytest

from tests.integration.conftest import TINY, run
from tests.integration.wandb_file import read_run

pytestmark = pytest.mark.slow

#: `TINY` without the settings of the network.
TINY_DATA = [argument for argument in TINY if not argument.startswith("network")] + [
    "network.stem=4",
    "network.channels=[4,4,4]",
]


def jobs(sweep: Path) -> dict[str, Path]:
    """Return the folders of the jobs with results, by their names."""
    return {path.parent.name: path.parent for path in sweep.glob("*/results.jsonl")}


def test_failed_jobs_do_not_stop_a_sweep(tmp_path):
    """Of eight jobs, four have crops larger than their images and two diverge."""
    arguments = ["network=small,mini", "sampling=nu", "data.crop=32,512", "optim.optimizer.lr=1e-3,1e30", "optim=adam"]
    small = [argument for argument in TINY_DATA if not argument.startswith("data.crop")]
    done = run(
        "sapnet", "train", "-m", *arguments, *small, "logger=wandb", f"hydra.sweep.dir={tmp_path}/monday", cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    failed = [line for line in done.stderr.splitlines() if line.startswith("Job ") and " failed: " in line]
    assert len(failed) == 6
    assert sum("crop" in line for line in failed) == 4
    assert sum("Training stopped at generator step" in line for line in failed) == 2
    assert len(jobs(tmp_path / "monday")) == 2

    runs = [read_run(path) for path in sorted(tmp_path.glob("monday/*/wandb/offline-run-*/run-*.wandb"))]
    assert len({run.id for run in runs}) == len(runs), "separate W&B runs"
    # Each training, and the tests of the successful ones.
    assert sorted(run.exit_code for run in runs if run.job_type == "train") == [0, 0, 1, 1]
    assert {run.group for run in runs} == {"monday"}
    assert sorted({tag for run in runs for tag in run.tags} & {"small", "mini"}) == ["mini", "small"]


def test_rows_of_table_4_are_swept_by_a_pattern(tmp_path):
    """`tests/models/test_configurations.py` tests that each row composes and builds."""
    arguments = ["ablation=glob(net1*)", *TINY_DATA, f"hydra.sweep.dir={tmp_path}/t4"]
    done = run("sapnet", "train", "-m", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(jobs(tmp_path / "t4")) == 2, "net10 and net11"
