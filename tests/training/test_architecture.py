"""Weights that fit are taken over; others are refused in a sentence that names what differs."""

from pathlib import Path

import hydra
import pytest
import torch

from sapnet.errors import UserError
from sapnet.training.architecture import check_same_architecture, take_weights
from sapnet.training.checkpoints import stamp
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


def written(model):
    """The checkpoint of a network with random weights."""
    network = hydra.utils.instantiate(model)
    with torch.no_grad():
        for value in network.parameters():
            value.normal_()
    content = {"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()}}
    stamp(content, model, 70)
    return content


def check(model, checkpoint):
    check_same_architecture(hydra.utils.instantiate(model), model, checkpoint, PATH)


def test_another_architecture_is_named_with_the_setting_that_made_it():
    checkpoint = written(MODEL)
    check(MODEL, checkpoint)
    with pytest.raises(UserError) as caught:
        check(MODEL | {"channels": [4, 8, 8], "stages": 2}, checkpoint)
    sentence = str(caught.value)
    assert "network.channels=[4, 4, 8] (here [4, 8, 8]), network.stages=1 (here 2)" in sentence
    assert "stages.0." in sentence and " in the checkpoint and (" in sentence and "\n" not in sentence
    with pytest.raises(UserError, match=r"stages\S+ of the checkpoint is not in the network"):
        check(MODEL, written(MODEL | {"stages": 2}))


def test_a_setting_is_named_as_on_the_command_line():
    theirs = adaptive(generator=SAMPLED | {"stem": 4}, seed=1)
    ours = adaptive(generator=SAMPLED | {"stem": 8}, budget=0.1, seed=2)
    with pytest.raises(UserError, match=r"with network\.stem=4 \(here 8\), sampling\.budget=0\.0 \(here 0\.1\)\.$"):
        check(ours, written(theirs))


def taken(theirs, ours):
    """The weights that a new network has afterwards, those it had before, the checkpoint's, and what was said."""
    checkpoint = written(theirs)
    network = hydra.utils.instantiate(ours)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    notes = take_weights(network, ours, checkpoint, PATH)
    stored = {name.removeprefix("network."): value for name, value in checkpoint["state_dict"].items()}
    return network.state_dict(), before, stored, notes


@pytest.mark.parametrize("model", [MODEL, adaptive(), adaptive("predicted_error")])
def test_the_weights_of_an_equal_network_are_all_taken(model):
    ours, before, theirs, notes = taken(model, model)
    assert not notes and ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(not torch.equal(ours[name], before[name]) for name in ours)


def test_the_budget_and_the_seed_change_no_weights():
    ours, _, theirs, notes = taken(adaptive(budget=0.2, seed=3), adaptive())
    assert not notes and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("theirs", "ours", "notes"),
    [
        (
            adaptive(),
            adaptive("random"),
            ["Not taken from other.ckpt: the weights of sampling.sampler=learned, not used here."],
        ),
        (
            adaptive(),
            adaptive("predicted_error"),
            [
                "Not taken from other.ckpt: the weights of sampling.sampler=learned, sampling.sampler=predicted_error"
                " here.",
                "What chooses the points (sampling.sampler=predicted_error) starts untrained.",
            ],
        ),
        (
            adaptive(),
            adaptive(policy_width=8),
            [
                "Not taken from other.ckpt: the weights of sampling.sampler=learned, of another size here.",
                "What chooses the points (sampling.sampler=learned) starts untrained.",
            ],
        ),
        (adaptive("random"), adaptive(), ["What chooses the points (sampling.sampler=learned) starts untrained."]),
        (SAMPLED, adaptive(), ["What chooses the points (sampling.sampler=learned) starts untrained."]),
        (
            adaptive(),
            SAMPLED,
            ["Not taken from other.ckpt: the weights of sampling.sampler=learned, not used here."],
        ),
    ],
)
def test_of_another_sampling_the_generator_alone_is_taken_and_it_is_said(theirs, ours, notes):
    found, before, stored, said = taken(theirs, ours)
    assert said == notes
    for name, value in found.items():
        inner = name.removeprefix("generator.")
        if name.startswith("samplers."):
            assert torch.equal(value, before[name]), name
        else:
            assert torch.equal(value, stored.get(name, stored.get(inner, stored.get(f"generator.{inner}")))), name


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        (MODEL, MODEL | {"stem": 8}, r"stages\S+ is .* in the checkpoint and .*network\.stem=4 \(here 8\)"),
        (MODEL, MODEL | {"stages": 2}, r"stages\.1\S+ is missing in the checkpoint.*network\.stages=1 \(here 2\)"),
        (adaptive(), MODEL | {"stages": 2, "sampled": False}, r"network\.sampled=True \(here False\)"),
        # The same weights would mean something else.
        (
            MODEL | {"residual": "blurred"},
            MODEL | {"residual": "previous"},
            r"; it was trained with network\.residual=blurred \(here previous\)",
        ),
    ],
)
def test_another_generator_is_refused(theirs, ours, words):
    with pytest.raises(UserError, match=rf"^other.ckpt: its weights do not fit this run's network.*{words}"):
        taken(theirs, ours)


def test_a_setting_that_the_checkpoint_does_not_record_is_said():
    *_, notes = taken(MODEL, MODEL | {"residual": "previous"})
    assert notes == ["network.residual is not recorded in other.ckpt: previous is used."]
