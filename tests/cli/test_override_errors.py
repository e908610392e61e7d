"""A wrong override ends in one sentence that names it, and what it can be."""

import pytest
from hydra.utils import instantiate

from sapnet.cli import override_errors
from tests.cli.conftest import is_one_sentence


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


def test_an_option_of_a_list_is_named_with_the_others(configs, command):
    app = configs / "app.yaml"
    app.write_text(app.read_text().replace("model: small", "model: [small]"))
    (configs / "model" / "small.yaml").write_text("small: {width: 4}")
    (configs / "model" / "large.yaml").write_text("large: {width: 40}")
    assert command("input=x", "model=[small,large]", task=lambda config: None) == (0, "", "")
    assert command("input=x", "model=[small,tiny]")[2] == (
        "model=tiny: there is no such option; model can be large, small.\n"
    )


def test_a_key_that_has_moved_to_one_logger_is_named(command, monkeypatch):
    monkeypatch.setitem(override_errors.MOVED, "optim.offline", "optim.wandb.offline")
    assert command("input=x", "optim.offline=false")[2] == (
        "optim.offline: there is no such key; with logger=wandb it is optim.wandb.offline.\n"
    )


def test_a_key_below_a_renamed_group_is_named_as_it_is_called_now(command, monkeypatch):
    monkeypatch.setitem(override_errors.RENAMED, "zzz", "optim")
    assert command("input=x", "zzz.steps=3")[2] == (
        "zzz.steps: there is no such key; did you mean optim.steps? --help lists them all.\n"
    )


def test_base_of_other_options_is_named(command, configs):
    base = configs / "model" / "base"
    base.mkdir()
    (base / "wide.yaml").write_text("defaults: [shared]\nwidth: 50\n")
    (base / "shared.yaml").write_text("depth: 2\n")
    assert command("input=x", "model=base/wide")[2] == (
        "model=base/wide: other options are built on it; choose one of those that --help lists.\n"
    )


def test_option_that_a_target_does_not_have_is_named(command):
    error = command("input=x", "+model.depth=3", task=lambda config: instantiate(config.model))[2]
    assert error == (
        "Picky has no option depth: leave out the override, or the option of a config group such as ablation=, that"
        " sets it.\n"
    )
