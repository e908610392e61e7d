"""The commands in the documentation compose, and the code of docs/lightning.md runs."""

import contextlib
import re
import shlex
from typing import Any

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sapnet.cli import module_name
from sapnet.configs import CONFIG_DIR
from sapnet.evaluation.network_evaluation import evaluate
from tests.integration.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^(?:\$ )?(?:python -m )?sapnet (train|evaluate|demo|count|reproduce|benchmark|check-data) (.*)$")


def commands() -> list[tuple[str, str, str]]:
    commands = []
    for page in PAGES:
        for line in page.read_text().splitlines():
            match = COMMAND.match(line.split("  #")[0].strip())
            # The sweeper is an extra that the tests do not install.
            if match and "hydra/sweeper=" not in line:
                commands.append((page.name, *match.groups()))
    return commands


@pytest.mark.parametrize(("page", "name", "arguments"), commands())
def test_a_command_of_the_documentation_composes(page, name, arguments):
    arguments = [argument for argument in shlex.split(arguments) if "=" in argument and not argument.endswith("=...")]
    first = []
    for override in OverridesParser.create().parse_overrides(arguments):
        values = override.sweep_iterator() if override.is_sweep_override() and "glob" not in override.input_line else []
        value = next(iter(values), None)
        if "glob" not in override.input_line:
            first.append(override.input_line if value is None else f"{override.get_key_element()}={value}")
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        hydra.compose(module_name(name), first, return_hydra_config=True)


@pytest.fixture(scope="module")
def lightning(tmp_path_factory) -> dict[str, Any]:
    """Names after the Python blocks of docs/lightning.md, run in an empty folder."""
    names: dict[str, Any] = {"folder": tmp_path_factory.mktemp("lightning")}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "lightning.md").read_text(), re.DOTALL)
    with contextlib.chdir(names["folder"]):
        for block in blocks:
            exec(compile(block, "docs/lightning.md", "exec"), names)
    return names


def test_the_page_on_lightning_runs(lightning):
    assert [tuple(image.shape) for image in lightning["restored"]] == [(3, 64, 64)] * 2
    assert len(set(lightning["names"])) == 2 and lightning["psnr"].compute() > 20


def test_lightning_tests_as_the_command_evaluates(lightning, tmp_path):
    """The module of the page, from its checkpoint."""
    data = {"_target_": "sapnet.data.generated.SyntheticData", "test": 2, "size": 64}
    summary = evaluate(lightning["folder"] / "runs/python/checkpoints/best.ckpt", OmegaConf.create(data), tmp_path)
    assert lightning["results"]["test/psnr"] == pytest.approx(summary["stage_psnr"][-1], abs=1e-4)
    assert lightning["results"]["test/ssim_1"] == pytest.approx(summary["stage_ssim"][0], abs=1e-5)
    assert lightning["results"]["test/psnr_input"] == pytest.approx(summary["input_psnr"], abs=1e-4)


def test_the_documentation_contains_commands():
    assert len(commands()) > 15
