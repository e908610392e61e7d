"""Real processes that get SIGTERM or SIGINT: a checkpoint, one line, the signal's exit code, and no lost work."""

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
# Three batches in an epoch; validations after steps 2, 4, 6 (the end of an epoch) and 7, of two batches each.
WORDS = [
    *(word for word in TINY if not word.startswith(("steps=", "validate_every="))),
    *("sampling=nu", f"steps={STEPS}", "validate_every=2", "data.eval_batch=1", "evaluate=false"),
    "trainer.log_every_n_steps=1",
]
WORD = {signal.SIGTERM: "Terminated", signal.SIGINT: "Interrupted"}


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": str(ROOT)} | more


def start(*command: object, **more: str) -> subprocess.Popen:
    """Python in a process group of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    words = [sys.executable, *map(str, command)]
    # A shell's background jobs ignore Ctrl-C, and their children would too.
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(words, env=environment(**more), start_new_session=True, preexec_fn=heed, **pipes)


def end(process: subprocess.Popen) -> tuple[int, str]:
    try:
        out, error = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert "Traceback" not in error, error
    return process.returncode, out + error


def train(folder: Path, *words: str, **more: str) -> tuple[int, str]:
    return end(start("-m", "sapnet", "train", *WORDS, *words, f"hydra.run.dir={folder}", **more))


def signalled(folder: Path, moment: str, step: int, signum: signal.Signals, *words: str) -> tuple[int, str]:
    run = [*WORDS, *words, f"hydra.run.dir={folder}"]
    return end(start(SIGNALLED, moment, step, signum.name, "train", *run))


def until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def rows(folder: Path) -> int:
    return len((folder / "metrics.csv").read_text().splitlines()) if (folder / "metrics.csv").is_file() else 0


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert train(folder)[0] == 0
    return folder


@pytest.mark.slow
def test_a_run_that_signals_end_again_and_again_equals_an_unbroken_one(unbroken: Path, tmp_path: Path) -> None:
    """Weights, optimizers, curves and the best checkpoint, though the folder has another name each time."""
    folder = tmp_path / "run0"
    moments = [
        ("step", 1, signal.SIGTERM, 1),
        ("validation", 2, signal.SIGINT, 2),  # of an epoch that is not at its end
        ("log", 3, signal.SIGTERM, 4),  # the next step is finished, and its validation not begun
        ("validation", 6, signal.SIGTERM, 6),  # the last batch of an epoch
        ("validation", 7, signal.SIGINT, 7),  # of the last step
    ]
    for number, (moment, step, signum, saved) in enumerate(moments, start=1):
        code, said = signalled(folder, moment, step, signum)
        assert code == 128 + signum, said
        line = f"{WORD[signum]}; {folder}/checkpoints/last.ckpt holds step {saved}, and the same command goes on from"
        assert line in said.splitlines()[-1] and said.count("last.ckpt holds step") == 1, said
        assert content(folder)["sapnet"]["generator_steps"] == saved
        folder = folder.rename(tmp_path / f"run{number}")
    assert train(folder)[0] == 0
    ours, theirs = content(folder), content(unbroken)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "sapnet", "SyntheticData", "callbacks"):
        assert_equal(ours[key], theirs[key], key)
    assert (folder / "metrics.csv").read_text() == (unbroken / "metrics.csv").read_text()
    assert_equal(content(folder, "best")["state_dict"], content(unbroken, "best")["state_dict"])


@pytest.mark.slow
def test_a_finished_run_that_is_repeated_keeps_its_files(unbroken: Path) -> None:
    paths = [unbroken / "checkpoints" / "last.ckpt", unbroken / "checkpoints" / "best.ckpt", unbroken / "metrics.csv"]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    assert train(unbroken)[0] == 0
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before


@pytest.mark.slow
@pytest.mark.parametrize("signum", WORD)
def test_a_signal_in_the_evaluation_keeps_the_training(unbroken: Path, signum: signal.Signals) -> None:
    code, said = signalled(unbroken, "evaluation", 0, signum, "evaluate=true")
    assert code == 128 + signum
    assert said.splitlines()[-1] == f"{WORD[signum]}; saved files are kept in the run folder."


@pytest.mark.parametrize("signum", WORD)
@pytest.mark.parametrize("command", ["train", "deblur", "tiles"])
def test_a_signal_while_libraries_are_imported_ends_at_once(command: str, signum: signal.Signals) -> None:
    code, said = end(start(SIGNALLED, "loading", 0, signum.name, command))
    assert (code, said) == (128 + signum, f"{WORD[signum]}.\n")


def test_the_console_script_handles_signals_before_it_imports_a_command() -> None:
    code = "import os, sys; from sapnet import cli; cli.importlib.import_module = lambda _: os.kill(os.getpid(), 15)"
    process = start("-c", f"{code}; sys.argv[1:] = ['train']; cli.main()")
    assert end(process) == (143, "Terminated.\n")


@pytest.mark.slow
def test_loader_processes_that_get_the_signal_too_do_not_break_the_step(unbroken: Path, tmp_path: Path) -> None:
    """As Ctrl-C in a terminal and SLURM do: everybody in the process group gets it."""
    folder, words = tmp_path / "run", [*WORDS, "steps=100000", "data.workers=2", "validate_every=100000"]
    process = start("-m", "sapnet", "train", *words, f"hydra.run.dir={folder}")
    until(lambda: rows(folder) > 3, process)
    os.killpg(process.pid, signal.SIGTERM)
    code, said = end(process)
    assert code == 143 and "holds step" in said, said
    assert content(folder)["sapnet"]["generator_steps"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False])
def test_processes_that_train_together_end_at_the_same_step(whole_group: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["trainer=ddp", "trainer.devices=2", "steps=100000", "validate_every=100000"]
    process = start("-m", "sapnet", "train", *WORDS, *words, f"hydra.run.dir={folder}")
    until(lambda: rows(folder) > 3, process)
    os.killpg(process.pid, signal.SIGTERM) if whole_group else process.send_signal(signal.SIGTERM)
    code, said = end(process)
    assert code == 143 and said.count("holds step") == 1, said
    steps = content(folder)["sapnet"]["generator_steps"]
    process = start("-m", "sapnet", "train", *WORDS, *words, f"steps={steps + 2}", f"hydra.run.dir={folder}")
    assert end(process)[0] == 0
    assert content(folder)["sapnet"]["generator_steps"] == steps + 2


@pytest.mark.slow
def test_lightnings_requeueing_under_slurm_still_works(unbroken: Path, tmp_path: Path) -> None:
    """SIGUSR1 before the time limit saves and requeues; the SIGTERM that follows saves `last.ckpt` and ends the job."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    scontrol.chmod(0o755)
    job = {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "nu", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    job |= {"SLURM_NODEID": "0", "SLURM_NNODES": "1", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    folder = tmp_path / "run"
    process = start("-m", "sapnet", "train", *WORDS, "steps=100000", f"hydra.run.dir={folder}", **job)
    until(lambda: rows(folder) > 3, process)
    process.send_signal(signal.SIGUSR1)
    until((tmp_path / "requeued").is_file, process)
    process.send_signal(signal.SIGTERM)
    code, said = end(process)
    assert code == 143 and "last.ckpt holds step" in said, said
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert (folder / "hpc_ckpt_1.ckpt").is_file()
