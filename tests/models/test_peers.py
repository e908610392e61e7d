"""The published networks: names and shapes of their weights, outputs of the authors' code, and costs."""

import math
from pathlib import Path

import pytest
import torch

from sapnet.evaluation.complexity import count
from tests.models.oracle import Oracle, available, fill, manifest


def each(slow_above: float = math.inf):
    """Return a parametrization over the networks; those with more parameters are slow."""
    marks = {oracle: [pytest.mark.slow] if oracle.parameters > slow_above else [] for oracle in available()}
    cases = [pytest.param(o, marks=marks[o], id=o.network.replace(" network.", " ")) for o in available()]
    return pytest.mark.parametrize("oracle", cases)


@each(slow_above=40e6)
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


@each()
def test_weights_and_cost(oracle: Oracle):
    """The expected multiply-adds are without the readings of bilinear resizing; `docs/networks.md` has all of them."""
    with torch.device("meta"):
        network = oracle.build()
    assert len(network.state_dict()) == oracle.keys
    assert manifest(network) == oracle.manifest
    cost = count(network, oracle.counted, oracle.counted)
    assert cost.total_parameters == oracle.parameters
    assert cost.gmacs - cost.by_operator().get("bilinear reading", 0) / 2e9 == pytest.approx(oracle.gmacs, rel=0.002)
    assert documented_row(oracle.config) == [
        str(network.requirements),
        f"{cost.total_parameters:,}",
        f"{cost.gmacs:.2f}",
    ]


def documented_row(config: str) -> list[str]:
    """Return the last three cells of a network's row in `docs/networks.md`: input, parameters, GMACs."""
    page = Path(__file__).parents[2] / "docs" / "networks.md"
    (row,) = [line for line in page.read_text().splitlines() if line.startswith(f"| `{config}`")]
    return [cell.strip() for cell in row.strip("| ").split("|")[-3:]]
