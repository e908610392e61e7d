"""A small command of the tests' own, in this process."""

import logging
import os
import shutil
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from sapnet.cli import hydra_command
from sapnet.configs import CONFIG_DIR
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
optim:
  rate: 1
  # How
  # long.
  steps: 10
input: ???
act: return
"""


class Picky:
    """Object that a config builds; it rejects some widths."""

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
    for name, width, title in (("small", 4, ""), ("large", 40, "# Wide. For large images.\n")):
        node = f"_target_: tests.cli.conftest.Picky\nwidth: {width}  # channels\n"
        (folder / "model" / f"{name}.yaml").write_text(title + node)
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
