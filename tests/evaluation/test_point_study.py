"""Study of points on a small random network."""

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


def has_weights(network, before):
    after = network.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_budgets_and_samplers_are_measured_and_the_network_is_unchanged():
    network, items = make_network(budget=-0.1), make_items()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = point_study.study(network, items, CPU)
    assert has_weights(network, before) and network.sampler == "learned"
    assert network.budget == -0.1 and {s.budget for s in network.samplers.values()} == {-0.1}
    assert [row["budget"] for row in result["budgets"]] == sorted({*point_study.BUDGETS, -0.1})
    assert result["points_db"].keys() == {"learned", "random", "extent", "none"}
    with torch.no_grad():
        own = [float(psnr(network(i["blurred"][None])[-1], i["sharp"][None])) for i in items]
        blurred = [float(psnr(i["blurred"], i["sharp"])) for i in items]
    assert result["points_db"]["learned"]["psnr"] == pytest.approx(np.mean(own))
    assert result["points_db"]["learned"]["gain_db"] == 0
    stages = result["stages"]
    assert stages[-1]["psnr"] == pytest.approx(np.mean(own)), "differs from the PSNR at the budget of the network"
    assert stages[0]["psnr"] - stages[0]["gain_db"] == pytest.approx(np.mean(blurred))
    assert sum(row["gain_db"] for row in stages) == pytest.approx(np.mean(own) - np.mean(blurred))
    for row in result["budgets"]:
        assert row["ci95"][0] <= row["gain_db"] <= row["ci95"][1]
    assert {row["budget"]: row["gain_db"] for row in result["budgets"]}[0.0] == 0
    assert len({row["psnr"] for row in result["budgets"]}) == len(result["budgets"]), "a budget without effect"
    assert json.loads(json.dumps(result)) == result
    text = point_study.as_markdown(result)
    assert (
        text.startswith(result["conclusion"])
        and "| no points |" in text
        and "| -90% |" in text
        and "| random |" in text
    )
    assert result == point_study.study(network, items, CPU), "not deterministic"


def test_images_equal_to_their_truth_are_excluded():
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
def test_no_points_equal_unused_slots(make):
    """In every network that samples, with and without windows."""
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
        for without, unused_slots in zip(empty, slots, strict=True):
            assert torch.allclose(without, unused_slots, rtol=0, atol=1e-6)
        assert (own[-1] - empty[-1]).abs().max() > 1e-4, "points have no effect"


def row(gain, low, high):
    return {"psnr": 30.0, "gain_db": gain, "ci95": [low, high]}


@pytest.mark.parametrize(
    ("none", "random", "expected"),
    [
        (row(0.01, 0.005, 0.015), row(0.0, 0.0, 0.0), "the sampled points do nothing here"),
        (row(0.30, -0.1, 0.7), row(0.0, 0.0, 0.0), "the sampled points do nothing here"),
        (row(0.30, 0.2, 0.4), row(0.10, 0.05, 0.15), "points add +0.300 dB [+0.200, +0.400] against no points"),
        (row(0.30, 0.2, 0.4), row(0.00, -0.05, 0.05), "no difference that these images show"),
        (row(-0.30, -0.4, -0.2), row(0.10, 0.05, 0.15), "points cost -0.300 dB"),
    ],
)
def test_conclusion_follows_from_the_gains(none, random, expected):
    result = {"images": 9, "sampler": "learned", "points_db": {"none": none, "random": random}}
    sentence = point_study.conclusion(result)
    assert expected in sentence
    assert ("no difference" in sentence) == ("no difference" in expected)
    assert ("equals PSNR at the budget" in sentence) == ("nothing" in expected)


def test_conclusion_of_points_without_effect():
    """The blocks of the network add nothing, so all budgets give the same PSNR."""
    network = make_network()
    for module in network.generator.modules():
        if hasattr(module, "project") and hasattr(module, "content_aware"):
            torch.nn.init.zeros_(module.project.weight)
            torch.nn.init.zeros_(module.project.bias)
    result = point_study.study(network, make_items(), CPU)
    assert len({round(row["psnr"], 9) for row in result["budgets"]}) == 1
    assert result["conclusion"].startswith(
        "PSNR without any points equals PSNR at the budget: the sampled points do nothing"
    )


def test_value_map_distributes_values_over_pixels():
    """Two patches side by side and two scales; the sum of the values is preserved."""
    points = {2: torch.tensor([[0, 5, -1], [7, -1, -1]]), 4: torch.tensor([[1], [0]])}
    sampling = SampledPoints(points, {}, {2: 1, 4: 2}, torch.zeros(1, 2, 8), (1, 2))
    values = {2: torch.tensor([[1.0, 2, 99], [3, 99, 99]]), 4: torch.tensor([[8.0], [-4]])}
    expected = torch.tensor([[1.0, 0, 2, 2, -1, -1, 0, 0], [0, 2, 2, 2, -1, -1, 0, 3]])
    assert torch.equal(point_values.value_map(sampling, values)[0], expected)


def test_value_map_predicts_the_change_of_the_error_by_gates():
    """Compared with a finite difference."""
    network, item = make_network("uniform"), make_items(1, 24, 40)[0]
    walk, maps = point_values.point_values(network, item, CPU)
    assert network.budget == 0 and all(p.requires_grad for p in network.generator.parameters())
    assert set(maps) == {1, 2} and maps[1].shape == (24, 40)
    points = {k: sampling.points for k, sampling in walk.sampled_points.items()}
    assert all(len(p[0].unique()) == p.shape[1] for scales in points.values() for p in scales.values())

    def error(stage, value):
        def gates(state, points):
            return {r: torch.full(p.shape, value if state.stage == stage else 1.0) for r, p in points.items()}

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


def test_centre_crop():
    item = make_items(1, 40, 30)[0] | {"name": "a"}
    crop = point_values.centre_crop(item, 32)
    assert crop["sharp"].shape == (3, 32, 30) and crop["extent"].shape == (1, 32, 30) and crop["name"] == "a"
    assert torch.equal(crop["blurred"], item["blurred"][:, 4:36])
