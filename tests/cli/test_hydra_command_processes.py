"""A command as a process of its own: signals, a full disk, stack traces, and the processes of a launcher."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sapnet.configs
from tests.cli.conftest import is_one_sentence

PROGRAM = """
import sys, time
from pathlib import Path
from sapnet.cli import hydra_command
from sapnet.errors import UserError

hydra_command.CONFIG_DIR = Path(sys.argv.pop(1))

@hydra_command.hydra_command("app")
def main(config):
    if config.act == "wait":
        print("waiting", flush=True)
        time.sleep(60)
    if config.act == "swallow":
        # As where the exception is raised inside a destructor.
        try:
            print("waiting", flush=True)
            time.sleep(60)
        except BaseException:
            return
    if config.act == "mistake":
        raise UserError(f"rate={config.optim.rate} is too high.")
    if config.act == "bug":
        raise RuntimeError("a bug")
    print("done", config.optim.rate, flush=True)

main()
"""


def run_program(
    configs: Path, *arguments: str, ignore: int | None = None, preexec_fn=None, **environment: str
) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(sapnet.configs.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    program = configs.parent / "app.py"
    program.write_text(PROGRAM)

    def heed() -> None:
        # A shell's background jobs ignore interrupts, and their children would too.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if ignore is not None:
            signal.signal(ignore, signal.SIG_IGN)

    return subprocess.Popen(
        [sys.executable, str(program), str(configs), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
        preexec_fn=preexec_fn or heed,
    )


def test_a_full_disk_is_one_sentence(configs):
    """No file may grow beyond some bytes: Hydra cannot write its configs, or the log."""
    limits = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))}
    # Python would leave truncated bytecode behind.
    with run_program(configs, "input=x", PYTHONDONTWRITEBYTECODE="1", **limits) as program:
        out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (1, "") and is_one_sentence(err) and "File too large" in err


@pytest.mark.parametrize(("signum", "name"), [(signal.SIGTERM, "Terminated"), (signal.SIGINT, "Interrupted")])
@pytest.mark.parametrize("mode", [["act=wait"], ["act=wait,return", "-m"], ["act=swallow,return", "-m"]])
def test_a_signal_is_a_sentence_and_its_exit_code(configs, signum, name, mode):
    """In a multirun it ends the sweep."""
    with run_program(configs, "input=x", *mode) as program:
        assert program.stdout.readline() == "waiting\n"
        for _ in range(2):  # as from a terminal and a parent process
            program.send_signal(signum)
        out, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (128 + signum, f"{name}; saved files are kept in the run folder.\n")
    assert out == "", "the next job has begun"


def test_a_signal_that_is_ignored_at_the_start_stays_ignored(configs):
    """As a shell's background jobs and `nohup` do it."""
    with run_program(configs, "input=x", "act=wait", ignore=signal.SIGINT) as program:
        assert program.stdout.readline() == "waiting\n"
        program.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(timeout=1)
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=30) == 143


def test_the_exit_code_is_the_signals_where_the_stack_trace_is_asked_for_too(configs):
    with run_program(configs, "input=x", "act=wait", HYDRA_FULL_ERROR="1") as program:
        assert program.stdout.readline() == "waiting\n"
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=30) == 143


def test_the_stack_trace_is_there_for_who_asks(configs):
    with run_program(configs, "input=x", "act=mistake", HYDRA_FULL_ERROR="1") as program:
        _, err = program.communicate(timeout=60)
    assert program.returncode == 1
    assert "Traceback" in err and err.endswith("sapnet.errors.UserError: rate=1 is too high.\n")


@pytest.mark.slow
def test_jobs_in_other_processes_fail_the_same_way(configs):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    arguments = ["--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "input=x"]
    with run_program(configs, *arguments, "act=mistake,return,bug") as program:
        out, err = program.communicate(timeout=120)
    assert program.returncode == 1
    assert "[#1] done 1\n" in out
    assert "[#0] Job 0 failed: rate=1 is too high.\n" in err
    assert err.endswith("The sweep has ended with a failed job: rate=1 is too high.\n")
