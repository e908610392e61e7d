"""The commands in the documentation compose."""

import re
import shlex

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sapnet.cli import module_name
from sapnet.configs import CONFIG_DIR
from tests.integration.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^(?:\$ )?(?:python -m )?sapnet (train|evaluate|demo|count|reproduce|benchmark|check-data) (.*)$")


def commands() -> list[tuple[str, str, str]]:
    commands = []
    for page in PAGES:
        for line in page.read_text().splitlines():
            match = COMMAND.match(line.split("  #")[0].strip())
            if match:
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


def test_the_documentation_contains_commands():
    assert len(commands()) > 15
