"""Processes that receive SIGTERM or SIGINT: checkpoint, message, exit code, and resumed training."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.test_kill import assert_equal, content
from tests.integration.conftest import ROOT, TINY

SIGNALLED = Path(__file__).with_name("signalled.py")
STEPS = 7
# Three batches per epoch; validations of two batches after steps 2, 4, 6 (end of an epoch) and 7.
OVERRIDES = [
    *(override for override in TINY if not override.startswith(("steps=", "validate_every="))),
    *("sampling=nu", f"steps={STEPS}", "validate_every=2", "data.eval_batch=1", "evaluate=false"),
    "trainer.log_every_n_steps=1",
]
MESSAGES = {signal.SIGTERM: "Terminated", signal.SIGINT: "Interrupted"}


def environment(**variables: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": str(ROOT)} | variables


def start(*command: object, **variables: str) -> subprocess.Popen:
    """Start Python in a new process group."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    arguments = [sys.executable, *map(str, command)]
    # Background jobs of a shell, and their children, ignore SIGINT.
    reset = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(arguments, env=environment(**variables), start_new_session=True, preexec_fn=reset, **pipes)


def wait(process: subprocess.Popen) -> tuple[int, str]:
    try:
        out, error = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert "Traceback" not in error, error
    return process.returncode, out + error


def train(folder: Path, *overrides: str, **variables: str) -> tuple[int, str]:
    return wait(start("-m", "sapnet", "train", *OVERRIDES, *overrides, f"hydra.run.dir={folder}", **variables))


def signalled(folder: Path, moment: str, step: int, signum: signal.Signals, *overrides: str) -> tuple[int, str]:
    arguments = [*OVERRIDES, *overrides, f"hydra.run.dir={folder}"]
    return wait(start(SIGNALLED, moment, step, signum.name, "train", *arguments))


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def rows(folder: Path) -> int:
    return len((folder / "metrics.csv").read_text().splitlines()) if (folder / "metrics.csv").is_file() else 0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train(folder)[0] == 0
    return folder


@pytest.mark.slow
def test_a_run_interrupted_repeatedly_equals_an_uninterrupted_one(uninterrupted: Path, tmp_path: Path) -> None:
    """Weights, optimizers, metrics and the best checkpoint are equal, although the folder is renamed each time."""
    folder = tmp_path / "run0"
    moments = [
        ("step", 1, signal.SIGTERM, 1),
        ("validation", 2, signal.SIGINT, 2),  # in the middle of an epoch
        ("log", 3, signal.SIGTERM, 4),  # the next step is finished, but not validated
        ("validation", 6, signal.SIGTERM, 6),  # at the last batch of an epoch
        ("validation", 7, signal.SIGINT, 7),  # after the last step
    ]
    for number, (moment, step, signum, saved) in enumerate(moments, start=1):
        code, output = signalled(folder, moment, step, signum)
        assert code == 128 + signum, output
        line = f"{MESSAGES[signum]}; {folder}/checkpoints/last.ckpt holds step {saved}; the same command resumes"
        assert line in output.splitlines()[-1] and output.count("last.ckpt holds step") == 1, output
        assert content(folder)["sapnet"]["generator_steps"] == saved
        folder = folder.rename(tmp_path / f"run{number}")
    assert train(folder)[0] == 0
    resumed, expected = content(folder), content(uninterrupted)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "sapnet", "SyntheticData", "callbacks"):
        assert_equal(resumed[key], expected[key], key)
    assert (folder / "metrics.csv").read_text() == (uninterrupted / "metrics.csv").read_text()
    assert_equal(content(folder, "best")["state_dict"], content(uninterrupted, "best")["state_dict"])


@pytest.mark.slow
def test_repeating_a_finished_run_changes_no_files(uninterrupted: Path) -> None:
    paths = [
        uninterrupted / "checkpoints" / "last.ckpt",
        uninterrupted / "checkpoints" / "best.ckpt",
        uninterrupted / "metrics.csv",
    ]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    assert train(uninterrupted)[0] == 0
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before


@pytest.mark.slow
@pytest.mark.parametrize("signum", MESSAGES)
def test_a_signal_during_the_evaluation_keeps_the_training(uninterrupted: Path, signum: signal.Signals) -> None:
    code, output = signalled(uninterrupted, "evaluation", 0, signum, "evaluate=true")
    assert code == 128 + signum
    assert output.splitlines()[-1] == f"{MESSAGES[signum]}; saved files are kept in the run folder."


@pytest.mark.parametrize("signum", MESSAGES)
@pytest.mark.parametrize("command", ["train", "deblur a.png -o b.png -c c.ckpt", "tiles"])
def test_a_signal_during_imports_ends_the_process_at_once(command: str, signum: signal.Signals) -> None:
    code, output = wait(start(SIGNALLED, "loading", 0, signum.name, *command.split()))
    assert (code, output) == (128 + signum, f"{MESSAGES[signum]}.\n")


def test_the_console_script_handles_signals_before_it_imports_a_command() -> None:
    code = "import os, sys; from sapnet import cli; cli.importlib.import_module = lambda _: os.kill(os.getpid(), 15)"
    process = start("-c", f"{code}; sys.argv[1:] = ['train']; cli.main()")
    assert wait(process) == (143, "Terminated.\n")


@pytest.mark.slow
def test_a_signal_to_loader_processes_does_not_break_the_step(uninterrupted: Path, tmp_path: Path) -> None:
    """Ctrl-C in a terminal and SLURM send the signal to all processes of the group."""
    folder, overrides = tmp_path / "run", [*OVERRIDES, "steps=100000", "data.workers=2", "validate_every=100000"]
    process = start("-m", "sapnet", "train", *overrides, f"hydra.run.dir={folder}")
    wait_for(lambda: rows(folder) > 3, process)
    os.killpg(process.pid, signal.SIGTERM)
    code, output = wait(process)
    assert code == 143 and "holds step" in output, output
    assert content(folder)["sapnet"]["generator_steps"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False])
def test_distributed_processes_end_at_the_same_step(whole_group: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    overrides = ["trainer=ddp", "trainer.devices=2", "steps=100000", "validate_every=100000"]
    process = start("-m", "sapnet", "train", *OVERRIDES, *overrides, f"hydra.run.dir={folder}")
    wait_for(lambda: rows(folder) > 3, process)
    os.killpg(process.pid, signal.SIGTERM) if whole_group else process.send_signal(signal.SIGTERM)
    code, output = wait(process)
    assert code == 143 and output.count("holds step") == 1, output
    steps = content(folder)["sapnet"]["generator_steps"]
    process = start("-m", "sapnet", "train", *OVERRIDES, *overrides, f"steps={steps + 2}", f"hydra.run.dir={folder}")
    assert wait(process)[0] == 0
    assert content(folder)["sapnet"]["generator_steps"] == steps + 2


@pytest.mark.slow
def test_lightning_requeues_slurm_jobs(uninterrupted: Path, tmp_path: Path) -> None:
    """SIGUSR1 before the time limit requeues the job; the following SIGTERM saves `last.ckpt` and ends it."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    scontrol.chmod(0o755)
    job = {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "nu", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    job |= {"SLURM_NODEID": "0", "SLURM_NNODES": "1", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    folder = tmp_path / "run"
    process = start("-m", "sapnet", "train", *OVERRIDES, "steps=100000", f"hydra.run.dir={folder}", **job)
    wait_for(lambda: rows(folder) > 3, process)
    process.send_signal(signal.SIGUSR1)
    wait_for((tmp_path / "requeued").is_file, process)
    process.send_signal(signal.SIGTERM)
    code, output = wait(process)
    assert code == 143 and "last.ckpt holds step" in output, output
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert (folder / "hpc_ckpt_1.ckpt").is_file()
