"""`sapnet COMMAND`: what is listed, what is refused, and what a shell completes."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from sapnet.cli import COMMANDS, module_name, overview, unknown_command_message
from tests.integration.conftest import ROOT, run


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_all_commands_are_listed_one_line_each(arguments, tmp_path):
    done = run("sapnet", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", done.stdout, re.M)
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_each_command_is_a_module_with_a_main_and_each_module_is_listed():
    for name in COMMANDS:
        assert importlib.util.find_spec(f"sapnet.cli.{module_name(name)}") is not None
    shared = {"__init__", "argument_types", "comments", "completion", "help", "hydra_command", "job_output"}
    shared |= {"override_errors", "sweeps"}
    files = {path.stem for path in (ROOT / "sapnet" / "cli").glob("*.py")} - shared
    assert files == {module_name(name) for name in COMMANDS}


def test_a_command_only_composes_calls_and_reports():
    for name in COMMANDS:
        lines = (ROOT / "sapnet" / "cli" / f"{module_name(name)}.py").read_text().splitlines()
        assert len(lines) <= 65, name


@pytest.mark.parametrize("arguments", ["[]", "['--help']", "['trian']", "['-sc', 'query=bash']"])
def test_the_list_needs_no_library_that_takes_seconds(arguments):
    """The time itself depends on the machine; what costs it is the import of these."""
    heavy = "{'torch', 'pytorch_lightning', 'numpy', 'albumentations', 'wandb'}"
    code = f"import sys; from sapnet import cli; sys.argv[1:] = {arguments}\ntry: cli.main()\nexcept SystemExit: pass\n"
    code += f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COMP_LINE": "sapnet train mod"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("trian", "trian: there is no such command; did you mean train? sapnet --help lists them all."),
        ("check_data", "check_data: there is no such command; did you mean check-data? sapnet --help lists them all."),
        ("xyz", "xyz: there is no such command; sapnet --help lists them all."),
        ("steps=3", "steps=3: there is no such command; sapnet --help lists them all."),
    ],
)
def test_an_unknown_command_ends_in_one_sentence(argument, sentence, tmp_path):
    done = run("sapnet", argument, "seed=0", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{sentence}\n")
    assert unknown_command_message(argument) == sentence and not list(tmp_path.iterdir())


def test_words_without_a_command_are_refused_outside_of_a_training_on_several_devices(tmp_path):
    """Only there do they stand in the place of the command: Lightning starts its processes so."""
    assert run("sapnet", "--multirun", cwd=tmp_path, SAPNET_COMMAND="count").returncode == 2
    done = run("sapnet", "--cfg", "job", cwd=tmp_path, SAPNET_COMMAND="check-data", LOCAL_RANK="1")
    assert done.returncode == 0 and "FolderData" in done.stdout, done.stderr


def test_the_console_script_is_the_same_door():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"sapnet": "sapnet.cli:main"}
    module, _, function = scripts["sapnet"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_readme_lists_what_the_door_lists():
    assert overview() in (ROOT / "README.md").read_text()


# --- shell completion


def completed(line: str, cwd) -> list[str]:
    done = run("sapnet", "-sc", "query=bash", cwd=cwd, COMP_LINE=line)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_commands_groups_options_and_keys_are_completed(tmp_path):
    assert completed("sapnet ", tmp_path) == list(COMMANDS)
    assert completed("sapnet de", tmp_path) == ["deblur", "demo"]
    assert completed("sapnet train network=s", tmp_path) == [
        f"network={name}" for name in ("sapnet", "sapnet_r124", "small", "srn", "srn_nolstm", "srn_nu", "svrn")
    ]
    assert completed("sapnet train seed=0 optim.optimizer.l", tmp_path) == ["optim.optimizer.lr="]
    assert "data.root=" in completed("sapnet check-data data.", tmp_path)
    # Commands without a config, and words that are none: the shell completes names of files.
    assert completed("sapnet deblur ph", tmp_path) == completed("sapnet trian mod", tmp_path) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script_that_is_installed(tmp_path):
    """The script as the documentation installs it, in a real shell; `sapnet` is a file as pip would write it."""
    program = tmp_path / "sapnet"
    program.write_text(f"#!{sys.executable}\nfrom sapnet.cli import main\nmain()\n")
    program.chmod(0o755)
    script = """
        eval "$(sapnet -sc install=bash)"
        function_name=$(complete -p sapnet | sed -E 's/.*-F ([^ ]+) .*/\\1/')
        COMP_LINE="sapnet train loss=" COMP_POINT=18 COMP_WORDS=(sapnet train loss=) COMP_CWORD=2
        $function_name
        echo "${COMPREPLY[@]}"
    """
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, cwd=tmp_path)
    losses = [f"loss={name}" for name in ("charbonnier", "charbonnier_edge", "l1", "l1_frequency", "mse")]
    assert done.stdout.split() == losses, done.stderr
