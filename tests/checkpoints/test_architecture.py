"""Comparison and transfer of the weights of a checkpoint."""

from pathlib import Path

import hydra
import pytest
import torch

from sapnet.checkpoints.architecture import check_same_architecture, transfer_weights
from sapnet.checkpoints.files import add_metadata
from sapnet.errors import UserError
from tests.training.two_optimizers import MODEL

PATH = Path("other.ckpt")
SAMPLED = MODEL | {"stages": 2, "sampled": True}


def adaptive(sampler="learned", generator=SAMPLED, **settings):
    return {
        "_target_": "sapnet.models.adaptive_network.AdaptiveNetwork",
        "generator": generator,
        "sampler": sampler,
        "budget": 0.0,
        "seed": 0,
    } | settings


def random_checkpoint(config):
    """Return the checkpoint of a network with random weights."""
    network = hydra.utils.instantiate(config)
    with torch.no_grad():
        for value in network.parameters():
            value.normal_()
    content = {"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()}}
    add_metadata(content, config, 70)
    return content


def check(config, checkpoint):
    check_same_architecture(hydra.utils.instantiate(config), config, checkpoint, PATH)


def test_another_architecture_is_reported_with_the_changed_settings():
    checkpoint = random_checkpoint(MODEL)
    check(MODEL, checkpoint)
    with pytest.raises(UserError) as caught:
        check(MODEL | {"channels": [4, 8, 8], "stages": 2}, checkpoint)
    message = str(caught.value)
    assert "network.channels=[4, 4, 8] (here [4, 8, 8]), network.stages=1 (here 2)" in message
    assert "stages.0." in message and " in the checkpoint and (" in message and "\n" not in message
    with pytest.raises(UserError, match=r"stages\S+ of the checkpoint is not in the network"):
        check(MODEL, random_checkpoint(MODEL | {"stages": 2}))


def test_settings_are_named_as_on_the_command_line():
    stored = adaptive(generator=SAMPLED | {"stem": 4}, seed=1)
    current = adaptive(generator=SAMPLED | {"stem": 8}, budget=0.1, seed=2)
    with pytest.raises(UserError, match=r"with network\.stem=4 \(here 8\), sampling\.budget=0\.0 \(here 0\.1\)\.$"):
        check(current, random_checkpoint(stored))


def transfer(stored_config, config):
    """Transfer weights; return those after and before, those of the checkpoint, and the messages."""
    checkpoint = random_checkpoint(stored_config)
    network = hydra.utils.instantiate(config)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    notes = transfer_weights(network, config, checkpoint, PATH)
    stored = {name.removeprefix("network."): value for name, value in checkpoint["state_dict"].items()}
    return network.state_dict(), before, stored, notes


@pytest.mark.parametrize("config", [MODEL, adaptive(), adaptive("predicted_error")])
def test_all_weights_of_the_same_network_are_transferred(config):
    after, before, stored, notes = transfer(config, config)
    assert not notes and after.keys() == stored.keys()
    assert all(torch.equal(after[name], stored[name]) for name in after)
    assert any(not torch.equal(after[name], before[name]) for name in after)


def test_the_budget_and_the_seed_do_not_affect_weights():
    after, _, stored, notes = transfer(adaptive(budget=0.2, seed=3), adaptive())
    assert not notes and all(torch.equal(after[name], stored[name]) for name in after)


@pytest.mark.parametrize(
    ("stored_config", "config", "notes"),
    [
        (
            adaptive(),
            adaptive("random"),
            ["Not transferred from other.ckpt: the weights of sampling.sampler=learned, which are not used here."],
        ),
        (
            adaptive(),
            adaptive("predicted_error"),
            [
                "Not transferred from other.ckpt: the weights of sampling.sampler=learned, because"
                " sampling.sampler=predicted_error here.",
                "The sampler (sampling.sampler=predicted_error) starts untrained.",
            ],
        ),
        (
            adaptive(),
            adaptive(policy_width=8),
            [
                "Not transferred from other.ckpt: the weights of sampling.sampler=learned, which have another size"
                " here.",
                "The sampler (sampling.sampler=learned) starts untrained.",
            ],
        ),
        (adaptive("random"), adaptive(), ["The sampler (sampling.sampler=learned) starts untrained."]),
        (SAMPLED, adaptive(), ["The sampler (sampling.sampler=learned) starts untrained."]),
        (
            adaptive(),
            SAMPLED,
            ["Not transferred from other.ckpt: the weights of sampling.sampler=learned, which are not used here."],
        ),
    ],
)
def test_with_another_sampler_only_the_generator_is_transferred(stored_config, config, notes):
    after, before, stored, messages = transfer(stored_config, config)
    assert messages == notes
    for name, value in after.items():
        inner = name.removeprefix("generator.")
        if name.startswith("samplers."):
            assert torch.equal(value, before[name]), name
        else:
            assert torch.equal(value, stored.get(name, stored.get(inner, stored.get(f"generator.{inner}")))), name


@pytest.mark.parametrize(
    ("stored_config", "config", "message"),
    [
        (MODEL, MODEL | {"stem": 8}, r"stages\S+ is .* in the checkpoint and .*network\.stem=4 \(here 8\)"),
        (MODEL, MODEL | {"stages": 2}, r"stages\.1\S+ is missing in the checkpoint.*network\.stages=1 \(here 2\)"),
        (adaptive(), MODEL | {"stages": 2, "sampled": False}, r"network\.sampled=True \(here False\)"),
        # The same weights would have another meaning.
        (
            MODEL | {"residual": "blurred"},
            MODEL | {"residual": "previous"},
            r"; it was trained with network\.residual=blurred \(here previous\)",
        ),
    ],
)
def test_another_generator_is_refused(stored_config, config, message):
    with pytest.raises(UserError, match=rf"^other.ckpt: its weights do not fit this run's network.*{message}"):
        transfer(stored_config, config)


def test_a_setting_that_the_checkpoint_does_not_record_is_reported():
    *_, notes = transfer(MODEL, MODEL | {"residual": "previous"})
    assert notes == ["network.residual is not recorded in other.ckpt: previous is used."]
