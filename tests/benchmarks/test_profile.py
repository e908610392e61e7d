"""Profile of a network whose modules take known times."""

import time

import pytest
import torch
from torch import nn

from benchmarks.profile import compare_with_macs, module_seconds, operators
from sapnet.evaluation.complexity import count, path_prefix
from tests.integration.conftest import run


class Takes(nn.Module):
    """Sleeps, then runs its child."""

    def __init__(self, seconds: float, child: nn.Module | None = None):
        super().__init__()
        self.seconds, self.child = seconds, child or nn.Conv2d(3, 3, 1)

    def forward(self, x):
        if not x.is_meta:
            time.sleep(self.seconds)
        return self.child(x)


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(Takes(0.06), Takes(0.02, Takes(0.03)))


def test_time_of_a_module_excludes_its_children(network):
    """The time of a child is not added to its parent."""
    result = module_seconds(network, torch.rand(1, 3, 8, 8), rounds=5)
    assert set(result) == {path for path, _ in network.named_modules()}
    for path, seconds in {"0": 0.06, "1": 0.02, "1.child": 0.03}.items():
        assert seconds <= result[path] < seconds + 0.025
    assert all(result[path] < 0.02 for path in ("", "0.child", "1.child.child"))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_slow_module_has_an_excess(network):
    """Both convolutions have equal shares of the operations, so one exceeds its share of the time by 30 ms."""
    seconds = {"0": 0.08, "0.child": 0.01, "1": 0.02, "1.child.child": 0.01}
    cost = count(network, 8, 8)
    lines = compare_with_macs(seconds, cost, lambda path: path_prefix(path, 1), "part").splitlines()
    assert lines[0].startswith("| part | ms |") and lines[2:] == [
        "| 0 | 90.0 | 75.0% | 0.000 | 50.0% | +30.0 |",
        "| 1 | 30.0 | 25.0% | 0.000 | 50.0% | -30.0 |",
    ]


def test_small_shares_are_summed_up(network):
    seconds = {"0": 1.0, "0.child": 0.0001, "1": 0.0002}
    text = compare_with_macs(seconds, count(network, 8, 8), lambda path: path, "module")
    assert "| 2 smaller ones | 0.3 | 0.0% |" in text and "0.child" not in text


def test_operators_are_listed_with_their_calls(network):
    text = operators(network, torch.rand(1, 3, 64, 64), most=30)
    assert "| aten::conv2d | 2 |" in text


@pytest.mark.slow
def test_profile_is_printed_and_written(tmp_path):
    arguments = ["--quick", "--models", "NU", "--size", "48x32", "--rounds", "1", "--out", "p.md"]
    done = run("benchmarks.profile", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.md").read_text() == done.stdout
    assert "## NU at 48x32" in done.stdout and "| sapnet::adaptive_filter | " in done.stdout
    assert "| samplers.1 |" in done.stdout and "| stages.2 |" in done.stdout
