"""A mistake at the command line ends in one sentence that names it, and with the right exit code."""

import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch.utils.data import DataLoader, Dataset

import sapnet.configs
from sapnet.cli import hydra_command, override_errors
from sapnet.configs import CONFIG_DIR
from sapnet.error_messages import user_error_message
from sapnet.errors import UserError

APP = """
defaults:
  - model: small
  - override hydra/help: sapnet
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
  - _self_
hydra:
  help: {app_name: sapnet-app, header: "sapnet-app: does what the tests need."}
  run: {dir: FOLDER/run}
  sweep: {dir: FOLDER/sweep}
optim: {rate: 1, steps: 10}
input: ???
act: return
"""

# The same command as a program of its own, where a signal or a launcher's workers are wanted.
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


class Picky:
    """What a config builds, with an opinion."""

    def __init__(self, width: int):
        if width > 100:
            raise UserError(f"width={width}: at most 100.")
        if width < 0:
            raise ValueError("negative width")


@pytest.fixture
def configs(tmp_path) -> Path:
    folder = tmp_path / "configs"
    (folder / "model").mkdir(parents=True)
    shutil.copytree(CONFIG_DIR / "hydra" / "help", folder / "hydra" / "help")
    (folder / "app.yaml").write_text(APP.replace("FOLDER", str(tmp_path)))
    for name, width in (("small", 4), ("large", 40)):
        (folder / "model" / f"{name}.yaml").write_text(
            f"_target_: tests.cli.test_hydra_command.Picky\nwidth: {width}\n"
        )
    return folder


@pytest.fixture
def command(configs, monkeypatch, capsys):
    """Calls a task as a command; returns its exit code, standard output and standard error."""
    monkeypatch.setattr(hydra_command, "CONFIG_DIR", configs)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def call(*arguments: str, task=lambda config: None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sapnet-app", *arguments])
        code = 0
        try:
            hydra_command.hydra_command("app")(task)()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    yield call
    assert "HYDRA_FULL_ERROR" not in os.environ
    root.handlers[:], root.level = before
    GlobalHydra.instance().clear()


def is_one_sentence(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text and "HYDRA" not in text


# --- mistakes in a task


def raising(error):
    def task(config):
        raise error

    return task


def test_a_mistake_ends_in_its_sentence_alone(command):
    code, out, err = command("input=x", task=raising(UserError("blurred/: there is\nno such folder.")))
    assert (code, out, err) == (1, "", "blurred/: there is no such folder.\n")


def test_a_good_run_ends_with_zero(command):
    seen = []
    assert command("input=x", "optim.rate=3", task=lambda config: seen.append(config.optim.rate)) == (0, "", "")
    assert seen == [3]


def test_a_mistake_inside_what_hydra_builds_is_found(command):
    code, _, err = command("input=x", "model.width=101", task=lambda config: instantiate(config.model))
    assert (code, err) == (1, "width=101: at most 100.\n")


def test_a_mistake_behind_another_error_is_found(command):
    def task(config):
        try:
            raise UserError("the cause.")
        except UserError:
            raise RuntimeError("what came of it")  # noqa: B904

    assert command("input=x", task=task)[::2] == (1, "the cause.\n")


def test_a_value_that_was_not_given_is_named(command):
    code, _, err = command(task=lambda config: config.input)
    assert code == 1 and is_one_sentence(err)
    assert err == "input is not given: add input=VALUE (--help lists the keys).\n"


def test_an_interpolation_that_leads_nowhere_is_named(command):
    code, _, err = command("input=${nowhere}", task=lambda config: config.input)
    assert code == 1 and is_one_sentence(err) and err.startswith("input in the config cannot be resolved: ")


def test_what_cannot_be_built_says_why_and_how_to_see_more(command):
    code, _, err = command("input=x", "model.width=-1", task=lambda config: instantiate(config.model))
    assert code == 1 and err.count("\n") == 1 and "Traceback" not in err
    assert "ValueError('negative width')" in err and "HYDRA_FULL_ERROR=1 shows the stack trace" in err


def test_a_fault_of_the_program_is_not_disguised(command):
    with pytest.raises(ZeroDivisionError):
        command("input=x", task=lambda config: 1 / 0)


class Broken(Dataset):
    """Fails as data does that is missing."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError("a.png: cannot be decoded; delete it: it is broken.")


def test_a_mistake_found_by_a_loaders_worker_is_as_short():
    with pytest.raises(UserError) as caught:
        next(iter(DataLoader(Broken(), num_workers=1, multiprocessing_context="fork")))
    assert "Traceback" in str(caught.value), "the loader no longer wraps errors, and the test shows nothing"
    assert user_error_message(caught.value) == "a.png: cannot be decoded; delete it: it is broken."


def test_only_the_users_mistakes_are_sentences():
    assert user_error_message(RuntimeError("x")) is None
    assert user_error_message(InstantiationException("a\nb")).startswith("a b (")


# --- mistakes at the command line


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("optim.rat=1", "optim.rat: there is no such key; did you mean optim.rate? --help lists them all."),
        ("zzz=1", "zzz: there is no such key; --help lists them all."),
        ("mode=small", "mode: there is no such key; did you mean model? --help lists them all."),
        ("model=tiny", "model=tiny: there is no such option; model can be large, small."),
        ("optim.rate=[1", "optim.rate=[1: not a valid override; write KEY=VALUE, and in quotes what holds brackets"),
        ("rate", "rate: not a valid override; write KEY=VALUE"),
        ("+optim.rate=2", "Could not append to config. An item is already at 'optim.rate'."),
        ("~zzz", "Could not delete from config. 'zzz' does not exist."),
        ("--config-name=zzz", "Cannot find primary config 'zzz'."),
        ("--config-dir=/nowhere", "Additional config directory '/nowhere' not found"),
    ],
)
@pytest.mark.parametrize("mode", [[], ["--multirun"]])
def test_a_wrong_override_is_one_sentence_with_a_way_out(command, argument, sentence, mode):
    code, out, err = command(*mode, "input=x", argument)
    assert code == 1 and out == ""
    assert is_one_sentence(err) and err.startswith(sentence)


def test_a_key_of_an_earlier_version_is_named_as_it_is_called_now(command, monkeypatch):
    monkeypatch.setitem(override_errors.RENAMED, "zzz", "optim.steps")
    assert command("input=x", "zzz=3")[2] == (
        "zzz: there is no such key; did you mean optim.steps? --help lists them all.\n"
    )
    # Where the command has no such key.
    monkeypatch.setitem(override_errors.RENAMED, "zzz", "optim.absent")
    assert command("input=x", "zzz=3")[2] == "zzz: there is no such key; --help lists them all.\n"


def test_help_tells_options_keys_and_flags(command):
    code, out, err = command("--help")
    assert (code, err) == (0, "")
    assert out.startswith("sapnet-app: does what the tests need.\n")
    assert "model: large, small" in out
    assert re.search(r"optim:\n  rate: 1\n  steps: 10\n", out) and "input: ???" in out
    assert "--multirun KEY=A,B,C" in out and "HYDRA_FULL_ERROR=1" in out and "Powered by Hydra" not in out


# --- places and values


@pytest.mark.parametrize("mode", [[], ["--multirun"]])
def test_a_folder_that_hydra_cannot_write_is_one_sentence(command, tmp_path, mode):
    (tmp_path / "file").touch()
    key = "hydra.sweep.dir" if mode else "hydra.run.dir"
    for place, reason in (("/proc/x", "No such file"), (f"{tmp_path}/file/x", "Not a directory")):
        code, out, err = command(*mode, "input=x", f"{key}={place}", task=lambda config: pytest.fail("was run"))
        assert (code, out) == (1, "") and is_one_sentence(err)
        assert place in err and reason in err and "choose another folder" in err


def test_a_value_that_the_runs_folder_is_named_after_has_to_be_given(command):
    code, out, err = command("hydra.run.dir=outputs/${input}", task=lambda config: pytest.fail("was run"))
    assert (code, out, err) == (1, "", "input is not given: add input=VALUE (--help lists the keys).\n")


def test_a_task_that_cannot_write_says_where(command, tmp_path):
    def task(config):
        (tmp_path / "file").touch()
        (tmp_path / "file" / "x").mkdir()

    code, _, err = command("input=x", task=task)
    assert code == 1 and is_one_sentence(err) and f"{tmp_path}/file/x: it cannot be written" in err


def test_a_missing_file_that_nobody_gave_is_a_fault_of_the_program(command):
    with pytest.raises(FileNotFoundError):
        command("input=x", task=lambda config: Path("/nowhere/x").read_text())


def test_a_full_disk_is_one_sentence(configs):
    """No file may grow beyond some bytes: Hydra cannot write its configs, or the log."""
    limits = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))}
    # Python would leave truncated bytecode behind.
    with run_program(configs, "input=x", PYTHONDONTWRITEBYTECODE="1", **limits) as program:
        out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (1, "") and is_one_sentence(err) and "File too large" in err


def test_a_value_out_of_range_ends_before_the_task(configs, command):
    (configs / "app.yaml").write_text((configs / "app.yaml").read_text() + "steps: 1\n")
    code, _, err = command("input=x", "steps=-5", task=lambda config: pytest.fail("was run"))
    assert (code, err) == (1, "steps=-5: give a whole number, 1 or more.\n")


# --- multiruns and interrupts


def test_the_other_jobs_of_a_multirun_go_on_and_each_failure_is_told(command):
    done = []

    def task(config):
        if config.optim.rate in (2, 3):
            raise UserError(f"rate={config.optim.rate} is too high.")
        done.append(config.optim.rate)

    code, _, err = command("--multirun", "input=x", "optim.rate=1,2,3,4", task=task)
    assert (code, done) == (1, [1, 4])
    assert "Job 1 failed: rate=2 is too high.\n" in err and "Job 2 failed: rate=3 is too high.\n" in err
    assert err.endswith("The sweep has ended with a failed job: rate=2 is too high.\n") and "Traceback" not in err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("mode", [[], ["--multirun"]])
def test_an_interrupt_ends_with_130(command, error, mode):
    started = []

    def task(config):
        started.append(config.optim.rate)
        if isinstance(error, KeyboardInterrupt):
            raise error
        # As Lightning does it.
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    code, _, err = command(*mode, "input=x", "optim.rate=1,2" if mode else "optim.rate=1", task=task)
    assert (code, err) == (130, "Interrupted; what was saved stays in the run's folder.\n")
    assert started == [1], "the sweep went on after the interrupt"


def test_other_exits_keep_their_code(command):
    assert command("input=x", task=lambda config: sys.exit(7))[0] == 7


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


@pytest.mark.parametrize(("signum", "word"), [(signal.SIGTERM, "Terminated"), (signal.SIGINT, "Interrupted")])
@pytest.mark.parametrize("mode", [["act=wait"], ["act=wait,return", "-m"], ["act=swallow,return", "-m"]])
def test_a_signal_is_a_sentence_and_its_exit_code(configs, signum, word, mode):
    """In a multirun it ends the sweep."""
    with run_program(configs, "input=x", *mode) as program:
        assert program.stdout.readline() == "waiting\n"
        for _ in range(2):  # as from a terminal and a parent process
            program.send_signal(signum)
        out, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (128 + signum, f"{word}; what was saved stays in the run's folder.\n")
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
    assert "done 1\n" in out
    assert "Job 0 failed: rate=1 is too high.\n" in err
    assert err.endswith("The sweep has ended with a failed job: rate=1 is too high.\n")


# --- where the configs are


def test_the_configs_of_a_checkout_are_found():
    assert CONFIG_DIR.is_absolute() and (CONFIG_DIR / "hydra" / "help" / "sapnet.yaml").is_file()


def test_the_configs_of_an_installed_package_come_first(tmp_path):
    package = tmp_path / "sapnet"
    (package / "conf").mkdir(parents=True)
    (tmp_path / "conf").mkdir()
    for name in ("__init__.py", "configs.py"):
        shutil.copy(Path(sapnet.configs.__file__).parent / name, package / name)
    script = "import sapnet.configs; print(sapnet.configs.CONFIG_DIR)"
    out = subprocess.check_output([sys.executable, "-c", script], cwd=tmp_path, text=True)
    assert Path(out.strip()) == (package / "conf").resolve()
