"""Benchmark of the networks with the smallest widths."""

import argparse
import json

import pytest
import torch

from benchmarks.cases import MODELS, PAIRS, Subject, builder, compose, image
from benchmarks.networks import GOALS, Bench, parser, positive, size_of
from sapnet.evaluation.complexity import count
from tests.integration.conftest import run

CPU = torch.device("cpu")


def test_pairs_differ_by_their_sampling():
    for sampled, uniform in PAIRS.items():
        assert "sampling=nu" in MODELS[sampled] and "sampling=uniform_network" in MODELS[uniform]
    assert all(name in MODELS for goals in GOALS.values() for name, _ in goals)


@pytest.mark.parametrize("name", ["NU", "SRN_U"])
def test_step_trains_the_whole_network(name):
    """The time of a step must include the policy and the optimizer."""
    torch.manual_seed(0)
    subject = Subject(compose(name, quick=True), CPU)
    blurred = image(32, 24, CPU)
    before = {key: value.detach().clone() for key, value in subject.network.named_parameters()}
    with subject.training(blurred) as step:
        step()
        assert subject.network.training
    moved = {key for key, value in subject.network.named_parameters() if not torch.equal(value, before[key])}
    assert len(moved) > 0.9 * len(before) and all(p.grad is None for p in subject.network.parameters())
    assert name != "NU" or any(key.startswith("samplers") for key in moved)
    subject.forward(blurred)()
    assert not subject.network.training


def test_timed_network_is_the_counted_one():
    config = compose("DMPHN_NU", quick=True)
    with torch.device("meta"):
        network = builder(config)()
    assert count(network, 32, 32).total_parameters == sum(p.numel() for p in Subject(config, CPU).network.parameters())


def test_only_full_networks_on_a_cpu_have_goals():
    given = {"U": None}, [(256, 256)], 1
    assert Bench(*given, CPU)._goal("floor", "U", (256, 256)) == 1.4
    assert Bench(*given, CPU, quick=True)._goal("floor", "U", (256, 256)) is None
    assert Bench(*given, torch.device("cuda"))._goal("floor", "U", (256, 256)) is None
    assert Bench(*given, CPU)._goal("memory", "U", (256, 256)) is None


def test_sizes_are_width_by_height():
    assert size_of("1280x720") == (1280, 720) and positive("3") == 3
    for argument in ("1280", "0x5", "axb", "3x", "-3x4"):
        with pytest.raises(argparse.ArgumentTypeError, match="WIDTHxHEIGHT"):
            size_of(argument)
    with pytest.raises(argparse.ArgumentTypeError):
        positive("0")
    with pytest.raises(SystemExit):
        parser().parse_args(["--models", "unet"])


@pytest.mark.slow
def test_benchmark_writes_the_printed_tables(tmp_path):
    """Counts, floor, times, steps, ratios and memory of two networks at two sizes."""
    arguments = "--quick --models NU U --sizes 48x32 80x64 --rounds 3 --out found/bench.json"
    done = run("benchmarks.networks", *arguments.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "found" / "bench.json").read_text())
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"bench.json", "bench.md"}
    assert record["environment"]["threads"] == 1 and "left" in done.stderr
    origin = record["provenance"]
    assert origin["command"] == f"python -m benchmarks.networks {arguments}" and all(origin.values())
    assert (tmp_path / "found" / "bench.md").read_text().strip() in done.stdout

    counts = {(line["model"], line["size"]): line for line in record["counts"]}
    assert list(counts) == [("NU", "48x32"), ("U", "48x32"), ("NU", "80x64"), ("U", "80x64")]
    # Per pixel the same work at every size, but for a few operations.
    assert counts["U", "80x64"]["gmacs"] / counts["U", "48x32"]["gmacs"] == pytest.approx(80 * 64 / (48 * 32), rel=0.05)

    best = record["floor"]["gmacs"] / min(record["floor"]["calibrations"])
    assert record["floor"]["gmacs_per_s"] == pytest.approx(best)
    timings = {(line["model"], line["size"], line["way"]): line for line in record["timings"]}
    rounds = {key: line["rounds"] for key, line in timings.items()}
    assert rounds == {
        **{(name, "48x32", "forward"): 3 for name in ("NU", "U")},
        **{(name, "48x32", "step"): 2 for name in ("NU", "U")},
        **{(name, "80x64", "forward"): 1 for name in ("NU", "U")},
    }
    for (name, size, way), line in timings.items():
        assert len(line["samples"]) == line["rounds"] and line["goal"] is None
        assert line["repeated"] == sum(len(attempts) - 1 for attempts in line["samples"])
        middle = line["seconds"]["middle"]
        if way == "forward":
            gmacs = counts[name, size]["gmacs"]
            assert line["gmacs_per_s"] == pytest.approx(gmacs / middle)
            assert line["times_floor"] == pytest.approx(middle / (gmacs / best))
        else:
            assert line["times_forward"] == pytest.approx(middle / timings[name, size, "forward"]["seconds"]["middle"])
    assert [(line["model"], line["to"], line["way"], line["size"]) for line in record["ratios"]] == [
        ("NU", "U", "forward", "48x32"),
        ("NU", "U", "step", "48x32"),
        ("NU", "U", "forward", "80x64"),
    ]
    assert record["ratios"][0]["gmacs"] > 1
    larger = [line["peak_bytes"] for line in record["memory"] if line["size"] == "80x64"]
    assert len(larger) == 2 and all(peak is None or peak > 2**18 for peak in larger)
    assert done.stdout.count("| NU | 48x32 |") == 4 and "| NU / U | 80x64 | forward |" in done.stdout
    head = done.stdout.index
    assert head("### Operations") < head("Arithmetic floor") < head("### Seconds") < head("### Cost of sampling")
