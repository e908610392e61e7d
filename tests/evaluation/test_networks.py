"""Change of sampler, budget and inference of a trained network."""

import pytest

from sapnet.errors import UserError
from sapnet.evaluation.networks import resample
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.sapnet import SAPNet


def make_network(**settings) -> AdaptiveNetwork:
    return AdaptiveNetwork(SAPNet(4, (4, 4, 4), encoder_blocks=1, decoder_blocks=1, sampled=True), **settings)


def settings(network: AdaptiveNetwork) -> tuple:
    return network.sampler, network.budget, network.inference


def test_each_setting_changes_independently():
    network = make_network(budget=0.1)
    weights = network.samplers["1"].policy.first.weight
    resample(network, inference="dither")
    assert settings(network) == ("learned", 0.1, "dither") and network.samplers["1"].policy.first.weight is weights
    resample(network, "learned", -0.1)
    assert settings(network) == ("learned", -0.1, "dither") and network.samplers["1"].policy.first.weight is weights
    resample(network, "random", inference="top")
    assert settings(network) == ("random", -0.1, "top")


def test_impossible_combinations_are_rejected():
    with pytest.raises(UserError, match=r"sampling\.inference=top"):
        resample(make_network(inference="dither"), "oracle")
    with pytest.raises(UserError, match="learned"):
        resample(make_network(sampler="extent"), inference="dither")
    with pytest.raises(UserError, match="inference"):
        resample(SAPNet(4, (4, 4, 4)), inference="dither")
