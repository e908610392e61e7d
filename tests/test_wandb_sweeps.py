"""The sweeps of W&B in `experiments/wandb_sweeps`: the commands that an agent would start compose."""

from pathlib import Path

import hydra
import pytest
import yaml
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from sapnet.cli import COMMANDS
from sapnet.configs import CONFIG_DIR

SWEEPS = sorted((CONFIG_DIR.parent / "experiments" / "wandb_sweeps").glob("*.yaml"))
METRICS = (Path(__file__).parent / "names" / "metrics.txt").read_text().splitlines()


def choices(parameter: dict) -> list:
    """Return the values that W&B may choose for a parameter, or the bounds of its distribution."""
    return parameter.get("values") or [parameter["min"], parameter["max"]]


def command(sweep: dict, values: dict) -> list[str]:
    """Return the command of a run, as `wandb agent` builds it."""
    macros = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    macros |= {"env": ["/usr/bin/env"], "program": [sweep["program"]]}
    arguments = []
    for argument in create_sweep_command(list(sweep["command"])):
        arguments += macros[argument[2:-1]] if argument.startswith("${") and argument.endswith("}") else [argument]
    return arguments


def test_there_are_sweeps():
    assert [path.stem for path in SWEEPS] == ["budget", "learning_rate"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_runs_of_a_sweep_compose(path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    sweep = yaml.safe_load(path.read_text())
    assert sweep["metric"]["name"] in METRICS and sweep["method"] in ("bayes", "grid")
    options = {key: choices(parameter) for key, parameter in sweep["parameters"].items()}
    # Each value at least once.
    for number in range(max(map(len, options.values()))):
        chosen = {key: values[number % len(values)] for key, values in options.items()}
        env, program, name, *overrides = command(sweep, chosen)
        assert (env, program) == ("/usr/bin/env", "sapnet") and name in COMMANDS
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            config = hydra.compose(name, overrides, return_hydra_config=True)
        assert list(config.logger) == ["csv", "wandb"] and config.logger.wandb.offline is False
        assert config.hydra.run.dir == "outputs/wandb/s1/r1"
        for key, value in chosen.items():
            composed = OmegaConf.select(config, key)
            assert config.hydra.runtime.choices.get(key, composed) == value
