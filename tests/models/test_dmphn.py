"""DMPHN: costs and a literal implementation; `test_weights.py` compares it with the authors' outputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.errors import UserError
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.dmphn import DMPHN, StackedDMPHN
from tests.models.peers import (
    choose_as_many,
    choose_everything,
    idle_parameters,
    parameters_and_macs,
    train_two_steps,
)

TINY = (2, 3, 4)


def nu(**changes) -> DMPHN:
    return DMPHN(**{"channels": TINY, "progressive": True, "sampled": True} | changes)


def conv(before, after, size=3):
    return before * after * size * size + after


ENCODER = conv(3, 32) + conv(32, 64) + conv(64, 128) + 4 * (conv(32, 32) + conv(64, 64) + conv(128, 128))
DECODER = conv(128, 64, 4) + conv(64, 32, 4) + conv(32, 3) + 4 * (conv(32, 32) + conv(64, 64) + conv(128, 128))


@pytest.mark.parametrize(
    "make, pairs, parameters, gmacs",
    [
        (lambda: DMPHN(3), 3, 5_424_393, 48.86),
        (lambda: DMPHN(4), 4, 7_232_524, 65.15),
        (StackedDMPHN, 12, 21_697_572, 195.44),
    ],
    ids=["1-2-4", "1-2-4-8", "stack 4"],
)
def test_parameters_and_cost_equal_the_published_ones(make, pairs, parameters, gmacs):
    counted, macs = parameters_and_macs(make)
    assert counted == parameters == pairs * (ENCODER + DECODER)
    assert macs == pytest.approx(gmacs, rel=1e-3)


def test_cost_of_sampling():
    """Only three transposed convolutions differ; the additional cost is that of the changes of resolution."""
    parameters, macs = parameters_and_macs(lambda: DMPHN(progressive=True, sampled=True))
    assert parameters == 4 * (ENCODER + DECODER) - 3 * (conv(64, 32, 4) - conv(64, 32, 3))
    full, half, quarter = 256**2, 128**2, 64**2
    down = 9 * 32 * 64 * (full - half) + 9 * 64 * 128 * (half - quarter)
    up = 16 * 128 * 64 * (half - quarter) + 64 * 32 * (9 * full - 16 * half)
    assert macs == pytest.approx(65.1459 + 3 * (down + up) / 1e9, abs=1e-3)
    assert macs == pytest.approx(77.43, abs=0.01)


def literal(network, image):
    """Compute DMPHN(1-2-4) patch by patch, with the names of its publication."""
    lv3, lv2, lv1 = network.levels
    height, width = image.shape[-2] // 2, image.shape[-1] // 2

    def encode(level, patch):
        return level.encoder(patch.permute(0, 2, 3, 1), {})

    def decode(level, features):
        return level.decoder(features, {})[0].permute(0, 3, 1, 2)

    top, bottom = image[:, :, :height], image[:, :, height:]
    joined = [
        torch.cat([encode(lv3, half[..., :width]), encode(lv3, half[..., width:])], dim=2) for half in (top, bottom)
    ]
    halves = [
        encode(lv2, half + decode(lv3, feature)) + feature for half, feature in zip((top, bottom), joined, strict=True)
    ]
    feature2 = torch.cat(halves, dim=1)
    return decode(lv1, encode(lv1, image + decode(lv2, feature2)) + feature2)


def test_equals_a_literal_implementation():
    torch.manual_seed(0)
    network = DMPHN(3, TINY).double()
    image = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    torch.testing.assert_close(network(image), [literal(network, image - 0.5) + 0.5])


def test_stack_equals_a_literal_implementation():
    """Adds the previous stack's features at each level, and the first stack's image below the top."""
    torch.manual_seed(0)
    network = StackedDMPHN(3, 3, TINY).double()
    blurred = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    image, before, outputs = blurred - 0.5, None, []
    for stack in network.stacks:
        lv3, lv2, lv1 = stack.levels
        f3 = lv3.encode(image, {}) + (before[0] if before else 0)
        f2 = lv2.encode(image + lv3.decode(f3, {})[0], {}) + f3 + (before[1] if before else 0)
        r2 = lv2.decode(f2, {})[0] + (outputs[0] if outputs else 0)
        f1 = lv1.encode(image + r2, {}) + f2 + (before[2] if before else 0)
        image, before = lv1.decode(f1, {})[0], (f3, f2, f1)
        outputs.append(image)
    torch.testing.assert_close(network(blurred), [image + 0.5 for image in outputs])


@pytest.mark.parametrize("make", [lambda: DMPHN(3, TINY), lambda: DMPHN(4, TINY), lambda: StackedDMPHN(2, 3, TINY)])
@settings(max_examples=8, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_any_size_from_one_pixel_up(make, height, width):
    blurred = torch.rand(1, 3, height, width)
    with torch.no_grad():
        outputs = make()(blurred)
    assert all(o.shape == blurred.shape and o.isfinite().all() for o in outputs)


@pytest.mark.parametrize("sampler", ["learned", "uniform", "random", "gradient", "oracle"])
@settings(max_examples=5, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([-0.9, 0.0, 2.0]))
def test_any_size_and_budget_with_every_sampler(sampler, height, width, budget):
    network = AdaptiveNetwork(nu(), sampler, budget).eval()
    blurred = torch.rand(1, 3, height, width)
    with torch.no_grad():
        outputs = network(blurred, torch.rand_like(blurred))
    assert [o.shape for o in outputs] == [blurred.shape] * 4


def test_every_level_is_initialised_as_the_identity():
    blurred = torch.rand(2, 3, 32, 32)
    for output in DMPHN(4, TINY, progressive=True)(blurred):
        torch.testing.assert_close(output, blurred)


def test_receptive_fields_of_levels():
    """The image of a level at a corner depends only on the decoder's patch."""
    torch.manual_seed(0)
    network = DMPHN(4, TINY, progressive=True).double()
    for level in network.levels:
        torch.nn.init.normal_(level.decoder.head.weight)
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    for output, rows, cols in zip(network(image)[:3], (32, 32, 64), (32, 64, 64), strict=True):
        (gradient,) = torch.autograd.grad(output[..., :4, :4].sum(), image, retain_graph=True)
        touched = gradient.abs().sum((0, 1)) > 0
        assert touched[:rows, :cols].any() and not touched[rows:].any() and not touched[:, cols:].any()


def test_images_of_a_batch_are_independent():
    torch.manual_seed(0)
    network = nu().double()
    for level in network.levels:
        torch.nn.init.normal_(level.decoder.head.weight)
    images, choose = torch.rand(3, 3, 32, 32, dtype=torch.float64), choose_as_many(network)
    together = network(images, choose)
    for n in range(3):
        for actual, alone in zip(together, network(images[n : n + 1], choose), strict=True):
            torch.testing.assert_close(actual[n : n + 1], alone)


def test_every_position_sampled_equals_the_dense_network():
    torch.manual_seed(0)
    network = nu().double()
    for level in network.levels:
        torch.nn.init.normal_(level.decoder.head.weight, std=0.1)
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    by_points = network(image, choose_everything(network))
    dense = network(image, lambda context: {})
    for actual, expected in zip(by_points, dense, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    few = network(image, choose_as_many(network))
    torch.testing.assert_close(few[0], dense[0])
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(few[1:], dense[1:], strict=True)), "points have no influence"


def test_every_parameter_receives_a_gradient():
    network, blurred = nu(), torch.rand(2, 3, 32, 32)
    assert idle_parameters(network, blurred, choose_as_many(network)) == []
    assert idle_parameters(DMPHN(4, TINY), blurred) == []
    assert idle_parameters(StackedDMPHN(2, 3, TINY), blurred) == []


@pytest.mark.parametrize("sampler", ["learned", "oracle"])
def test_training_with_the_adaptive_module(sampler):
    torch.manual_seed(0)
    train_two_steps(nu(levels=3), sampler)


def test_invalid_arguments_are_refused():
    with pytest.raises(UserError, match="progressive"):
        DMPHN(4, TINY, sampled=True)
    with pytest.raises(UserError, match="1 to 4 levels"):
        DMPHN(5, TINY)
    with pytest.raises(UserError, match="uniform_network"):
        AdaptiveNetwork(DMPHN(3, TINY))
    with pytest.raises(ValueError, match="choose"):
        nu()(torch.rand(1, 3, 16, 16))
