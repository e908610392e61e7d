"""The published networks: names and shapes of their weights, outputs of the authors' code, and costs."""

import pytest
import torch

from sapnet.evaluation.complexity import count
from tests.models.oracle import Oracle, available, fill, manifest

each = pytest.mark.parametrize("oracle", available(), ids=lambda oracle: oracle.network.replace(" network.", " "))


@each
def test_names_and_shapes_of_weights(oracle: Oracle):
    with torch.device("meta"):
        network = oracle.build()
    assert len(network.state_dict()) == oracle.keys
    assert manifest(network) == oracle.manifest
    assert sum(parameter.numel() for parameter in network.parameters()) == oracle.parameters


@each
def test_output_equals_that_of_the_authors_code(oracle: Oracle):
    """`restore` gets the image as it is: the code was run without padding."""
    network = fill(oracle.build().double(), oracle.gain)
    with torch.no_grad():
        output = network.restore(network.requirements.to_range(oracle.image()))[-1]
    output = network.requirements.from_range(output) * (oracle.white - oracle.black) + oracle.black
    actual = [output.mean(), output.std(correction=0), output[0, 0, 10, 20], output[0, 2, -1, -1]]
    expected = [oracle.mean, oracle.std, oracle.inner, oracle.corner]
    # The expected values have nine decimals.
    assert [float(value) for value in actual] == pytest.approx(expected, rel=1e-6, abs=1e-9)


@each
def test_cost(oracle: Oracle):
    """Without the readings of bilinear resizing, which the expected numbers leave out."""
    with torch.device("meta"):
        network = oracle.build()
    operators = count(network, oracle.counted, oracle.counted).by_operator()
    flops = sum(number for name, number in operators.items() if name != "bilinear reading")
    assert flops / 2e9 == pytest.approx(oracle.gmacs, rel=0.002)
