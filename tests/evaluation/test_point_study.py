"""The study of points on a tiny random network: what it measures, what it says, and that it leaves nothing changed."""

import json

import numpy as np
import pytest
import torch

from sapnet.evaluation import point_picture, point_study, point_values
from sapnet.evaluation.metrics import psnr
from sapnet.layers.content_aware import ContentAwareOptions
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.dmphn import DMPHN
from sapnet.models.sapnet import SAPNet
from sapnet.models.srn import SRN
from sapnet.sampling.sampled_points import SampledPoints

CPU = torch.device("cpu")


def make_network(sampler="learned", budget=0.0, **changes):
    torch.manual_seed(0)
    settings = {"stem": 4, "channels": (4, 4, 4), "encoder_blocks": 1, "decoder_blocks": 1} | changes
    network = AdaptiveNetwork(SAPNet(**settings, sampled=True), sampler, budget).eval()
    with torch.no_grad():
        for stage in network.generator.stages:
            torch.nn.init.normal_(stage.head.weight, std=0.05)
        for module in network.samplers.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.normal_(module.weight, std=0.2)
    return network


def make_items(number=3, height=32, width=32, extent=True, seed=0):
    rng = torch.Generator().manual_seed(seed)
    items = []
    for i in range(number):
        item = {key: torch.rand(3, height, width, generator=rng) for key in ("blurred", "sharp")}
        items.append(item | {"name": f"{i}"})
        if extent:
            items[-1]["extent"] = torch.rand(1, height, width, generator=rng)
    return items


def same(before, network):
    after = network.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_all_budgets_and_origins_are_measured_and_the_network_is_left_as_it_was():
    network, items = make_network(budget=-0.1), make_items()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = point_study.study(network, items, CPU)
    assert same(before, network) and network.sampler == "learned"
    assert network.budget == -0.1 and {s.budget for s in network.samplers.values()} == {-0.1}
    assert [row["budget"] for row in found["budgets"]] == sorted({*point_study.BUDGETS, -0.1})
    assert found["points_db"].keys() == {"learned", "random", "extent", "none"}
    with torch.no_grad():
        own = [float(psnr(network(i["blurred"][None])[-1], i["sharp"][None])) for i in items]
        blurred = [float(psnr(i["blurred"], i["sharp"])) for i in items]
    assert found["points_db"]["learned"]["psnr"] == pytest.approx(np.mean(own))
    assert found["points_db"]["learned"]["gain_db"] == 0
    stages = found["stages"]
    assert stages[-1]["psnr"] == pytest.approx(np.mean(own)), "at the network's own budget"
    assert stages[0]["psnr"] - stages[0]["gain_db"] == pytest.approx(np.mean(blurred))
    assert sum(row["gain_db"] for row in stages) == pytest.approx(np.mean(own) - np.mean(blurred))
    for row in found["budgets"]:
        assert row["ci95"][0] <= row["gain_db"] <= row["ci95"][1]
    assert {row["budget"]: row["gain_db"] for row in found["budgets"]}[0.0] == 0
    assert len({row["psnr"] for row in found["budgets"]}) == len(found["budgets"]), "a budget that changed nothing"
    assert json.loads(json.dumps(found)) == found
    text = point_study.as_markdown(found)
    assert text.startswith(found["words"]) and "| no points |" in text and "| -90% |" in text and "| random |" in text
    assert found == point_study.study(network, items, CPU), "the same in every run"


def test_images_equal_to_their_truth_are_left_out():
    network, items = make_network(), make_items(3)
    items[1]["blurred"] = items[1]["sharp"]
    assert point_study.study(network, items, CPU)["images"] == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: SAPNet(4, (4, 4, 4), sampled=True),
        lambda: SAPNet(4, (4, 4, 4), sampled=True, candidates="full"),
        lambda: SAPNet(4, (4, 4, 4), sampled=True, stages=1),
        lambda: SAPNet(4, (4, 4, 4), sampled=True, options=ContentAwareOptions(full_attention=True, fusion="concat")),
        lambda: SAPNet(4, (4, 4, 4), sampled=True, options=ContentAwareOptions(full_size_q=True, depthwise=True)),
        lambda: SRN(channels=(4, 4, 4), sampled=True),
        lambda: DMPHN(channels=(4, 4, 4), sampled=True, progressive=True),
    ],
)
def test_a_network_without_any_points_restores_as_with_unused_slots(make):
    """No slot and slots that hold nothing are one thing, in every network that samples, with and without windows."""
    torch.manual_seed(0)
    generator = make().eval()
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(0.05 * torch.randn_like(p))
    network = AdaptiveNetwork(generator, "uniform", candidates=getattr(generator, "candidates", "canvas"))
    blurred = torch.rand(1, 3, 70, 68)

    def unused(state):
        return {r: torch.full((len(p), 3), -1) for r, p in network.choose_points(state, "top").points.items()}

    for window in (None, 32) if hasattr(generator, "use_window") else (None,):
        network.use_window(window)
        with torch.no_grad():
            empty, slots = point_study.without_points(network, blurred), generator(blurred, unused)
            own = network(blurred)
        for ours, theirs in zip(empty, slots, strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)
        assert (own[-1] - empty[-1]).abs().max() > 1e-4, "points change nothing at all here"


def row(gain, low, high):
    return {"psnr": 30.0, "gain_db": gain, "ci95": [low, high]}


@pytest.mark.parametrize(
    ("none", "random", "said"),
    [
        (row(0.01, 0.005, 0.015), row(0.0, 0.0, 0.0), "the sampled points do nothing here"),
        (row(0.30, -0.1, 0.7), row(0.0, 0.0, 0.0), "the sampled points do nothing here"),
        (row(0.30, 0.2, 0.4), row(0.10, 0.05, 0.15), "points add +0.300 dB [+0.200, +0.400] against no points"),
        (row(0.30, 0.2, 0.4), row(0.00, -0.05, 0.05), "no difference that these images show"),
        (row(-0.30, -0.4, -0.2), row(0.10, 0.05, 0.15), "points cost -0.300 dB"),
    ],
)
def test_the_words_follow_from_the_figures(none, random, said):
    found = {"images": 9, "sampler": "learned", "points_db": {"none": none, "random": random}}
    words = point_study.in_words(found)
    assert said in words
    assert ("no difference" in words) == ("no difference" in said)
    assert ("equals PSNR at the budget" in words) == ("nothing" in said)


def test_inert_points_are_called_so():
    """A network whose blocks add nothing: every budget restores alike."""
    network = make_network()
    for module in network.generator.modules():
        if hasattr(module, "project") and hasattr(module, "content_aware"):
            torch.nn.init.zeros_(module.project.weight)
            torch.nn.init.zeros_(module.project.bias)
    found = point_study.study(network, make_items(), CPU)
    assert len({round(row["psnr"], 9) for row in found["budgets"]}) == 1
    assert found["words"].startswith("PSNR without any points equals PSNR at the budget: the sampled points do nothing")


def test_values_of_points_are_spread_over_their_pixels():
    """Two patches side by side, two scales: each value in its place, its sum kept."""
    points = {2: torch.tensor([[0, 5, -1], [7, -1, -1]]), 4: torch.tensor([[1], [0]])}
    sampling = SampledPoints(points, {}, {2: 1, 4: 2}, torch.zeros(1, 2, 8), (1, 2))
    values = {2: torch.tensor([[1.0, 2, 99], [3, 99, 99]]), 4: torch.tensor([[8.0], [-4]])}
    expected = torch.tensor([[1.0, 0, 2, 2, -1, -1, 0, 0], [0, 2, 2, 2, -1, -1, 0, 3]])
    assert torch.equal(point_values.value_map(sampling, values)[0], expected)


def test_a_map_of_values_predicts_what_switching_a_point_s_gate_changes():
    """Minus the derivative of the summed error: a small step of the gates changes the error as the map says."""
    network, item = make_network("uniform"), make_items(1, 24, 40)[0]
    walk, maps = point_values.point_values(network, item, CPU)
    assert network.budget == 0 and all(p.requires_grad for p in network.generator.parameters())
    assert set(maps) == {1, 2} and maps[1].shape == (24, 40)
    points = {k: sampling.points for k, sampling in walk.sampled_points.items()}
    assert all(len(p[0].unique()) == p.shape[1] for found in points.values() for p in found.values())

    def error(stage, value):
        def gates(state, found):
            return {r: torch.full(p.shape, value if state.stage == stage else 1.0) for r, p in found.items()}

        with torch.no_grad():
            output = network.generator(item["blurred"][None], lambda state: points[state.stage], gates=gates)[-1]
        return float((output.double() - item["sharp"].double()).abs().mean(1).sum())

    for stage in (1, 2):
        slope = -(error(stage, 1.001) - error(stage, 0.999)) / 0.002
        assert abs(slope) > 0.05 and float(maps[stage].sum()) == pytest.approx(slope, rel=0.02), stage


def test_values_are_compared_with_error_and_extent_and_drawn():
    network, items = make_network(), make_items(3, 32, 48)
    rows, maps = point_values.study_values(network, items, CPU, keep=2)
    assert {(row["stage"], row["truth"]) for row in rows} == {(k, t) for k in (2, 3) for t in ("error", "extent")}
    for row in rows:
        assert row["images"] == 3 and 0 < row["auc"] < 1 and -1 < row["rank_correlation"] < 1
        assert 0 < row["helpful"] < 1
    assert len(maps) == 2 and maps[0].keys() == {1, 2}
    drawn = point_picture.draw(network, items, CPU, maps, rows=3)
    plain = point_picture.draw(network, make_items(2, extent=False), CPU)
    assert drawn.shape[1] > plain.shape[1] and drawn.dtype == np.uint8


def test_the_middle_of_an_item():
    item = make_items(1, 40, 30)[0] | {"name": "a"}
    found = point_values.centre(item, 32)
    assert found["sharp"].shape == (3, 32, 30) and found["extent"].shape == (1, 32, 30) and found["name"] == "a"
    assert torch.equal(found["blurred"], item["blurred"][:, 4:36])
