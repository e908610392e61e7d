"""Other ways to sample than a checkpoint was trained with, as `sapnet evaluate` names them."""

import pytest

from sapnet.errors import UserError
from sapnet.evaluation.networks import resample
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.sapnet import SAPNet


def network(**settings) -> AdaptiveNetwork:
    return AdaptiveNetwork(SAPNet(4, (4, 4, 4), encoder_blocks=1, decoder_blocks=1, sampled=True), **settings)


def chosen(made: AdaptiveNetwork) -> tuple:
    return made.sampler, made.budget, made.inference


def test_each_choice_leaves_the_others_as_trained():
    made = network(budget=0.1)
    weights = made.samplers["1"].policy.first.weight
    resample(made, inference="dither")
    assert chosen(made) == ("learned", 0.1, "dither") and made.samplers["1"].policy.first.weight is weights
    resample(made, "learned", -0.1)
    assert chosen(made) == ("learned", -0.1, "dither") and made.samplers["1"].policy.first.weight is weights
    resample(made, "random", inference="top")
    assert chosen(made) == ("random", -0.1, "top")


def test_what_cannot_go_together_is_refused_with_a_way_out():
    with pytest.raises(UserError, match=r"sampling\.inference=top"):
        resample(network(inference="dither"), "oracle")
    with pytest.raises(UserError, match="learned"):
        resample(network(sampler="extent"), inference="dither")
    with pytest.raises(UserError, match="inference"):
        resample(SAPNet(4, (4, 4, 4)), inference="dither")
