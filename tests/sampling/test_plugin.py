"""The adaptive sampling step independent of a network."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.layers.hierarchy import join, split
from sapnet.sampling.plugin import AdaptiveRefinement, PointConv, PointResBlock, refine_at_points, regroup_points
from tests.training.test_policy_gradient_module import copies, fit, moved

DOC = Path(__file__).parents[2] / "docs" / "plugin.md"
POINTS = torch.tensor([[0, 3, 8, 19], [5, 11, -1, -1]])


def canvas(channels=3) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 4, 5, channels, dtype=torch.float64)


def test_only_points_change():
    x = canvas()
    refined = refine_at_points(x, POINTS, lambda canvas, points: torch.full((2, 4, 3), 9.0, dtype=torch.float64))
    changed = [[y * 5 + x for y, x in row.nonzero().tolist()] for row in (refined != x).all(dim=-1)]
    assert changed == [[0, 3, 8, 19], [5, 11]] and (refined == x).any(dim=-1).sum() == 2 * 20 - 6


@pytest.mark.parametrize("size", [1, 3, 5])
def test_convolution_at_points_equals_the_dense_one(size):
    x, conv = canvas(), PointConv(3, 4, size).double()
    dense = F.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=size // 2).flatten(2).transpose(1, 2)
    at = conv.at(x, POINTS)
    for i, row in enumerate(POINTS.tolist()):
        for j, p in enumerate(row):
            if p >= 0:
                torch.testing.assert_close(at[i, j], dense[i, p])


@pytest.mark.parametrize("size", [3, 5])
def test_block_with_every_position_sampled_equals_the_dense_block(size):
    """Values and gradients are the same on a grid and at points."""
    x, block = canvas().requires_grad_(), PointResBlock(3, size).double()
    results = []
    for points in (None, torch.arange(20).expand(2, -1).contiguous()):
        output = block(x, points)
        results.append([output, *torch.autograd.grad(output.square().sum(), [x, *block.parameters()])])
    for dense, sampled in zip(*results, strict=True):
        torch.testing.assert_close(sampled, dense, rtol=1e-9, atol=1e-9)


def test_block_at_points_equals_a_masked_block():
    """The hidden features are 0 and the output is unchanged at positions that are not sampled."""
    x, block = canvas(), PointResBlock(3).double()
    mask = torch.zeros(2, 1, 4, 5, dtype=torch.float64)
    for i, row in enumerate(POINTS.tolist()):
        for p in row:
            if p >= 0:
                mask[i, 0, p // 5, p % 5] = 1
    image = x.permute(0, 3, 1, 2)
    hidden = mask * F.conv2d(image, block.first.weight, block.first.bias, padding=1).relu()
    expected = image + mask * F.conv2d(hidden, block.second.weight, block.second.bias, padding=1)
    torch.testing.assert_close(block(x, POINTS), expected.permute(0, 2, 3, 1))


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([((4, 2), (2, 2)), ((2, 2), (2, 1)), ((2, 1), (1, 1)), ((4, 2), (1, 1)), ((1, 1), (1, 1))]),
    st.data(),
)
def test_regrouped_points_have_the_same_positions(grids, data):
    """Levels encode small patches and decode larger ones; points keep their position in the image."""
    fine, coarse = grids
    patches, height, width = 2 * fine[0] * fine[1], 3, 2
    masks = torch.tensor(data.draw(st.lists(st.booleans(), min_size=6 * patches, max_size=6 * patches)))
    masks = masks.view(patches, 6)
    points = torch.full((patches, 6), -1)
    for i, mask in enumerate(masks):
        points[i, : int(mask.sum())] = mask.nonzero()[:, 0]
    regrouped = regroup_points(points, height, width, fine, coarse)
    expected = split(join(masks.view(-1, 1, height, width), *fine), *coarse).flatten(1)
    for row, mask in zip(regrouped.tolist(), expected, strict=True):
        chosen = mask.nonzero()[:, 0].tolist()
        assert row == chosen + [-1] * (len(row) - len(chosen)), "not sorted, or not padded at the end"


def test_refinement_requests_points_and_refines_them():
    contexts = []

    def choose(context):
        contexts.append(context)
        return {4: torch.tensor([[2, 7]])}

    features, images = torch.randn(1, 6, 4, 8), torch.rand(2, 1, 3, 8, 16)
    step = AdaptiveRefinement(PointResBlock(6), PointResBlock(6), scale=4, stage=2)
    refined = step(features, images[0], images[1], choose)
    assert (refined != features).any(1).flatten().nonzero()[:, 0].tolist() == [2, 7]
    (context,) = contexts
    assert (context.stage, context.grid, context.size) == (2, (1, 1), (8, 16))
    assert torch.equal(context.features, features.permute(0, 2, 3, 1)) and torch.equal(context.restored, images[0])
    with pytest.raises(ValueError, match=r"canvas of 4x8, not 8x16"):
        step(torch.randn(1, 6, 8, 16), images[0], images[1], choose)


@pytest.fixture(scope="module")
def document() -> dict:
    """Namespace after execution of the code of docs/plugin.md."""
    torch.manual_seed(0)
    names: dict = {"__name__": "plugin_document"}
    for block in re.findall(r"```python\n(.*?)```", DOC.read_text(), re.S):
        exec(compile(block, str(DOC), "exec"), names)
    return names


def test_example_of_the_documentation_runs_and_has_ten_lines(document):
    assert document["second"].shape == (1, 3, 64, 64)
    (network,) = re.findall(r"class RefinedUNet.*?\n\n\n", DOC.read_text(), re.S)
    lines = [line for line in network.splitlines() if line.strip() and not line.strip().startswith(("class", "def"))]
    assert len(lines) <= 10


def test_example_of_the_documentation_trains(document):
    """The module trains generator and policy of an unknown network."""
    module = document["module"]
    module.policy = replace(module.policy, pretrain=0)
    policy, network = copies(module.network.samplers), copies(module.network.generator)
    fit(module, 3)
    assert moved(network, module.network.generator) and moved(policy, module.network.samplers)


def test_points_change_the_output_of_the_example(document):
    """The refinement changes the second output only within reach of sampled positions."""
    network = document["network"].eval()
    blurred = torch.rand(1, 3, 16, 16)
    walk = network.trace(blurred)
    points = walk.sampled_points[1].points[2]
    assert points.shape == (1, 64)
    generator = network.generator
    unrefined = blurred + generator.second(generator.unet(blurred))
    reach = F.max_pool2d(walk.sampled_points[1].mask(2)[:, None].float(), 3, 1, 1)[:, 0] > 0
    changed = (walk.outputs[1] - unrefined).abs().amax(1) > 1e-6
    assert changed.any() and not changed[~reach].any()
