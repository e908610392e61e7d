"""A mistake in a command ends in one sentence that names it, and with the right exit code."""

import re
import sys
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch.utils.data import DataLoader, Dataset

from sapnet.error_messages import user_error_message
from sapnet.errors import UserError
from tests.cli.conftest import is_one_sentence


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


def test_help_tells_options_keys_and_flags(command):
    code, out, err = command("--help")
    assert (code, err) == (0, "")
    assert out.startswith("sapnet-app: does what the tests need.\n")
    assert re.search(r"  model\n    large +Wide\.\n  \* small\n\n  model\.width=4 +channels\n", out)
    assert (
        re.search(r"  optim\.rate=1\n  optim\.steps=10 +How long\.\n  input=\?\?\?\n", out) and "hydra.run" not in out
    )
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
    assert code == 1 and is_one_sentence(err) and f"{tmp_path}/file/x: the file cannot be written" in err


def test_a_missing_file_that_nobody_gave_is_a_fault_of_the_program(command):
    with pytest.raises(FileNotFoundError):
        command("input=x", task=lambda config: Path("/nowhere/x").read_text())


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
    assert (code, err) == (130, "Interrupted; saved files are kept in the run folder.\n")
    assert started == [1], "the sweep went on after the interrupt"


def test_other_exits_keep_their_code(command):
    assert command("input=x", task=lambda config: sys.exit(7))[0] == 7
