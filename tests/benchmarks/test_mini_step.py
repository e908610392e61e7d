"""Benchmark of a training step of the small network on small crops."""

import pytest
import torch

from benchmarks.cases import compose_overrides
from benchmarks.mini_step import NETWORKS, PASSES, measure, report
from sapnet.evaluation.network_costs import count_config


@pytest.mark.slow
def test_steps_are_compared_with_the_floor():
    """Operations are those of a whole step, and the number of threads is restored."""
    before = torch.get_num_threads()
    record = measure(rounds=1, batch=2, side=32)
    assert torch.get_num_threads() == before
    assert [line["model"] for line in record["steps"]] == list(NETWORKS)
    config = compose_overrides(["network=mini", NETWORKS["U"]])
    config.width = config.height = 32
    uniform = record["steps"][0]
    assert uniform["gmacs"] == pytest.approx(PASSES * 2 * count_config(config).gmacs)
    for line in record["steps"]:
        assert line["floor_seconds"] == pytest.approx(line["gmacs"] / record["gmacs_per_s"])
        assert line["times_floor"] == pytest.approx(line["seconds"]["middle"] / line["floor_seconds"])
        assert line["times_floor"] > 1
    text = report(record)
    assert all(f"| {name} |" in text for name in NETWORKS) and "2 crops of 32x32" in text
