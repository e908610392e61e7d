"""Checks of config values and of writable folders."""

import hydra
import pytest
from omegaconf import OmegaConf

from sapnet.checks import RULES, check_values, check_writable
from sapnet.configs import CONFIG_DIR
from sapnet.errors import UserError
from sapnet.models.sapnet.network import HIERARCHIES
from sapnet.reporting.study import read_study

EXPERIMENTS = CONFIG_DIR.parent / "experiments"
COMMANDS = ("train", "evaluate", "demo", "reproduce", "count", "compare", "check_data")


def composed(command: str, *command_line: str):
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return hydra.compose(command, list(command_line))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_defaults_of_every_command_are_allowed(command):
    check_values(composed(command))


@pytest.mark.parametrize("network", sorted(path.stem for path in (CONFIG_DIR / "network").glob("*.yaml")))
def test_the_settings_of_every_network_are_allowed(network):
    check_values(composed("train", f"network={network}"))


@pytest.mark.parametrize("command", ["train", "demo"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=abc", "steps=abc: give a whole number, 1 or more."),
        ("steps=-5", "steps=-5: give a whole number, 1 or more."),
        ("steps=0", "steps=0: give a whole number, 1 or more."),
        ("steps=3.5", "steps=3.5: give a whole number, 1 or more."),
        ("steps=true", "steps=true: give a whole number, 1 or more."),
        ("data.crop=0", "data.crop=0: give a whole number, 16 or more."),
        ("data.batch=0", "data.batch=0: give a whole number, 1 or more."),
        ("data.workers=-1", "data.workers=-1: give a whole number, 0 or more, or null for one a core, four at most."),
        ("validate_every=0", "validate_every=0: give a whole number, 1 or more."),
        ("checkpoint_every=0", "checkpoint_every=0: give a whole number, 1 or more, or null for none between valid"),
        ("optim.optimizer.lr=-1", "optim.optimizer.lr=-1: give a number above 0."),
        ("optim.optimizer.lr=fast", "optim.optimizer.lr=fast: give a number above 0."),
        ("optim.optimizer.lr=.inf", "optim.optimizer.lr=.inf: give a number above 0."),
        ("seed=abc", "seed=abc: give a whole number from 0 to 4294967295."),
        ("seed=-1", "seed=-1: give a whole number from 0 to 4294967295."),
        ("network.stages=5", "network.stages=5: give a whole number from 1 to 4."),
        ("network.channels=[16,0]", "network.channels=[16,0]: give a list; each entry is a whole number, 1 or more."),
        ("stagewise=[0,1]", "stagewise=[0,1]: give a list; each entry is a number from 0 to below 1."),
        ("evaluate=perhaps", "evaluate=perhaps: give true or false."),
        ("resume=yes", "resume=yes: give auto, must or never."),
        ("study=pionts", "study=pionts: give map, policy, points, true, false or null."),
    ],
)
def test_a_value_out_of_range_is_reported_with_the_rule(command, override, message):
    with pytest.raises(UserError) as caught:
        check_values(composed(command, override))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("command", "override"),
    [
        ("evaluate", "window=0"),
        ("evaluate", "window=abc"),
        ("evaluate", "sampling.budget=-1"),
        ("evaluate", "sampling.budget=3.1"),
        ("evaluate", "data.test=0"),
        ("evaluate", "save_images=2"),
        ("demo", "training_seconds=0"),
        ("demo", "picture_scenes=0"),
        ("reproduce", "jobs=0"),
        ("reproduce", "seeds=abc"),
        ("reproduce", "seeds=[]"),
        ("reproduce", "seeds=[0,-1]"),
        ("reproduce", "overrides=abc"),
        ("compare", "checkpoints=a.ckpt"),
        ("count", "height=0"),
    ],
)
def test_values_of_other_commands_are_checked(command, override):
    with pytest.raises(UserError, match=override.partition("=")[0]):
        check_values(composed(command, override))


@pytest.mark.parametrize("override", ["sampling.budget=3", "sampling.budget=-0.99", "sampling.budget=0", "window=256"])
def test_the_bounds_of_ranges_are_allowed(override):
    check_values(composed("evaluate", override))


def test_folders_of_images_are_not_checked_as_numbers():
    check_values(composed("train", "data=folder", "data.train.blurred=a", "data.train.sharp=b"))


def test_null_groups_are_not_checked():
    check_values(OmegaConf.create({"data": None, "model": None, "steps": 1}))


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_overrides_of_the_studies_are_allowed(path):
    for scale in ("paper", "mini") if path.stem != "scales" else ():
        try:
            study = read_study(path, scale)
        except UserError:  # not all studies have both
            continue
        overrides = study.overrides(next(iter(study.rows)), 0)
        check_values(composed("train", *(override.replace("{data}", "DATA") for override in overrides)))


def test_the_numbers_of_stages_are_the_hierarchies_of_the_network():
    rule = RULES["network.stages"]
    assert [n for n in range(-1, 9) if rule.allows(n)] == sorted(HIERARCHIES)


@pytest.mark.parametrize(
    ("arguments", "key", "folder"),
    [
        (["check_data"], "run.dir", "outputs/check_data"),
        (["reproduce", "table=4", "root=R"], "run.dir", "R/logs/4_mini"),
        (["reproduce", "table=4", "row=Net9", "root=R"], "sweep.subdir", "Net9"),
    ],
)
def test_output_folders_of_the_commands(arguments, key, folder):
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = hydra.compose(arguments[0], arguments[1:], return_hydra_config=True)
    assert OmegaConf.select(config.hydra, key) == folder


def test_check_writable_creates_nothing_and_names_the_path(tmp_path):
    check_writable(tmp_path / "new" / "deep")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file, not a folder"):
        check_writable(tmp_path / "file" / "deep")
    with pytest.raises(UserError, match="/proc"):
        check_writable("/proc/none")
