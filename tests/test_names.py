"""The names that users type, plot and read by programs: a change of one breaks their scripts."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from sapnet.cli import COMMANDS
from sapnet.configs import CONFIG_DIR
from tests.integration.conftest import TINY, run

NAMES = Path(__file__).parent / "names"
#: Configs of commands; the other files of the folder belong to groups.
ROOTS = sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))


def check(kind: str, names: set[str]) -> None:
    """Compare names with the recorded ones; a new line there settles a new name."""
    recorded = set((NAMES / f"{kind}.txt").read_text().split("\n")) - {""}
    assert sorted(names) == sorted(recorded), f"new: {sorted(names - recorded)}, gone: {sorted(recorded - names)}"


def options() -> Iterator[tuple[str, str]]:
    """Yield the groups and their options; configs that others are based on are none."""
    for path in sorted(CONFIG_DIR.glob("*/**/*.yaml")):
        group = path.relative_to(CONFIG_DIR).parent.as_posix()
        if group not in ("hydra", "hydra/help", "data/base", "trainer/base", "sampling/policy"):
            yield group, path.stem


def compose(name: str, *overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return hydra.compose(name, [*overrides, "hydra/job_logging=none"])


def keys(config: DictConfig) -> Iterator[str]:
    nodes: list[tuple[str, DictConfig]] = [("", config)]
    while nodes:
        prefix, node = nodes.pop()
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig) and len(child):
                nodes.append((f"{prefix}{key}.", child))
            elif not str(key).startswith("_"):
                yield f"{prefix}{key}"


def test_commands_and_options():
    check("options", {f"sapnet {name}" for name in COMMANDS} | {f"{group}={option}" for group, option in options()})


@pytest.mark.parametrize("root", ROOTS)
def test_config_keys(root):
    """With every option of the groups that the command's own config lists; `count` and `demo` build on `train`."""
    defaults = OmegaConf.load(CONFIG_DIR / f"{root}.yaml").defaults
    taken = set() if "train" in defaults else {group for entry in defaults for group in _groups(entry)}
    names = set(keys(compose(root)))
    for group, option in options():
        if group in taken:
            names |= set(keys(compose(root, f"{group}={option}")))
    check(f"keys_{root}", names)


def _groups(entry: DictConfig | str) -> list[str]:
    if isinstance(entry, str):
        return []
    return [str(key).removeprefix("optional ").removeprefix("override ").lstrip("/") for key in entry]


@pytest.mark.slow
def test_metrics_and_results(tmp_path):
    """Of a network that samples, trained and studied by its command."""
    settings = ["sampling=nu", "study=points", "logger=csv"]
    done = run("sapnet", "train", *TINY, *settings, f"hydra.run.dir={tmp_path}/run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "run" / "metrics.csv") as file:
        check("metrics", set(csv.DictReader(file).fieldnames or ()))
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    check("results", set(json.loads(lines[0])))
    check("summary", set(json.loads((tmp_path / "run" / "summary.json").read_text())))
