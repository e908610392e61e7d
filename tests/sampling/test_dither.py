"""Dithered points: counts, valid positions and density."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.errors import UserError
from sapnet.layers.windows import cover
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.sapnet import SAPNet
from sapnet.sampling.dither import dither_mask, hilbert_order
from sapnet.sampling.learned import LearnedSampler
from sapnet.sampling.selection import extent_mask
from tests.sampling.contexts import FixedPolicy, check_points, make_context

SEEDS = st.integers(0, 2**31)


def random_map(height, width, seed, mean=0.25):
    """Draw an uneven map with smooth regions like those of a policy, not above 1."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, height // 8 + 2, width // 8 + 2, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[:, 0]
    p = torch.sigmoid(4 * smooth + torch.randn(1, height, width, generator=rng) - 1)
    return p * min(mean / p.mean().item(), 1 / p.max().item())


@pytest.mark.parametrize("side", [1, 2, 8, 32])
def test_curve_visits_neighbours(side):
    order = hilbert_order(side, side)
    y, x = order // side, order % side
    assert order.sort().values.tolist() == list(range(side**2))
    assert (y.diff().abs() + x.diff().abs() == 1).all()


@pytest.mark.parametrize(("height", "width"), [(12, 40), (7, 5), (4, 9)])
def test_aligned_squares_are_contiguous_on_the_curve(height, width):
    place = torch.empty(height * width, dtype=torch.int64)
    place[hilbert_order(height, width)] = torch.arange(height * width)
    for side in (2, 4):
        squares = place.view(height, width)[: height // side * side, : width // side * side]
        squares = squares.unfold(0, side, side).unfold(1, side, side).flatten(2)
        assert (squares.amax(2) - squares.amin(2) == side**2 - 1).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.floats(0.1, 30), SEEDS, st.data())
def test_exact_counts_and_no_points_in_the_padding(height, width, share, power, seed, data):
    """For maps with values near 0 almost everywhere, with ones and zeros, and with sums below or above the count."""
    rng = torch.Generator().manual_seed(seed)
    p = torch.rand(3, height, width, generator=rng).pow(power) * (torch.rand(3, 1, 1, generator=rng) < 0.8)
    p[1] = p[1].round()
    extents = [(height, width), (data.draw(st.integers(0, height)), data.draw(st.integers(0, width))), (height, 1)]
    counts = [round(share * rows * columns) for rows, columns in extents]
    valid = extent_mask(extents, height, width)
    mask = dither_mask(p, counts, valid)
    assert mask.flatten(1).sum(1).tolist() == counts
    assert not (mask & ~valid).any()
    assert torch.equal(mask, dither_mask(p, counts, valid)), "the result is not deterministic"
    alone = dither_mask(p[2:], counts[2:], valid[2:])
    assert torch.equal(mask[2:], alone), "maps depend on the other maps of the batch"


@settings(deadline=None, max_examples=50)
@given(st.integers(8, 80), st.integers(8, 80), st.floats(0.05, 0.3), SEEDS)
def test_counts_in_regions_follow_the_probabilities(height, width, mean, seed):
    """The error is below one in aligned squares, and slightly larger in rectangles that cut the curve often."""
    p = random_map(height, width, seed, mean)
    count = round(p.sum().item())
    excess = dither_mask(p, [count]).double() - p.double() * (count / p.double().sum())
    for side in (2, 4, 8):
        squares = excess[0, : height // side * side, : width // side * side].unfold(0, side, side).unfold(1, side, side)
        assert squares.sum((2, 3)).abs().max() < 1 + 1e-6
    rng = torch.Generator().manual_seed(seed)
    for _ in range(20):
        (top, bottom), (left, right) = (
            torch.randint(0, size + 1, (2,), generator=rng).sort().values.tolist() for size in (height, width)
        )
        border = 2 * (bottom - top + right - left)
        assert excess[0, top:bottom, left:right].sum().abs() < 1 + 1.5 * border**0.5


def test_density_follows_the_map():
    """Each of four bands of probability receives its share, within two points."""
    p = torch.tensor([0.05, 0.15, 0.3, 0.5]).repeat_interleave(16)[None, :, None].expand(1, 64, 64)
    bands = dither_mask(p, [1024])[0].view(4, 16, 64).sum((1, 2)).double()
    assert (bands - 1024 * torch.tensor([0.05, 0.15, 0.3, 0.5]).double()).abs().max() <= 2


def test_densities_above_one_are_capped():
    p = torch.full((1, 16, 16), 0.1)
    p[:, :4, :4] = 1
    mask = dither_mask(p, [100])[0]
    assert mask[:4, :4].all() and mask.sum() == 100
    assert abs(mask[8:, 8:].sum().item() - 64 * 84 / 240) < 1


def test_flat_map_gives_one_point_in_four():
    mask = dither_mask(torch.full((1, 32, 48), 0.3), [32 * 48 // 4])[0]
    assert (mask.unfold(0, 2, 2).unfold(1, 2, 2).sum((2, 3)) == 1).float().mean() > 0.95


@pytest.mark.parametrize("control", ["calibrated", "indicator"])
@pytest.mark.parametrize("window", [None, (16, 16)])
def test_learned_sampler_dithers_its_probabilities(control, window):
    logits = 2 * torch.randn(1, 32, 48, generator=torch.Generator().manual_seed(0))
    context = make_context((29, 43), (32, 48), (1, 1))
    if window:
        context = replace(context, windows=cover(32, 48, window, 8))
    sampler = LearnedSampler(FixedPolicy(logits), control, budget=0.1).eval()
    dithered, top = sampler(context, "dither"), sampler(context, "top")
    check_points(dithered, context, 0.1, exact=True)
    for r, p in dithered.probabilities.items():
        chosen = dithered.mask(r)[0, :: r // 2, :: r // 2]
        assert not torch.equal(dithered.points[r], top.points[r])
        assert p[0, chosen].mean() > p[0].mean(), "likely positions are not selected more often"
    assert not dithered.actions


def make_network(**settings):
    torch.manual_seed(0)
    network = AdaptiveNetwork(SAPNet(4, (4, 4, 4), encoder_blocks=1, decoder_blocks=1, sampled=True), **settings).eval()
    for sampler in network.samplers.values():
        for parameter in sampler.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def test_network_dithers_at_inference_and_draws_in_training():
    network, blurred = make_network(inference="dither"), torch.rand(1, 3, 32, 32)
    default, dithered, top = (
        network.trace(blurred),
        network.trace(blurred, mode="dither"),
        network.trace(blurred, mode="top"),
    )
    assert torch.equal(default.sampled_points[1].points[2], dithered.sampled_points[1].points[2])
    assert not torch.equal(default.sampled_points[1].points[2], top.sampled_points[1].points[2])
    network.use_inference("top")
    assert torch.equal(network.trace(blurred).sampled_points[1].points[2], top.sampled_points[1].points[2])
    network.use_inference("dither")
    assert network.train().trace(blurred).sampled_points[1].actions


def test_controls_and_unknown_modes_are_refused():
    with pytest.raises(UserError, match="learned"):
        make_network(sampler="oracle", inference="dither")
    with pytest.raises(UserError, match="'best'"):
        make_network(inference="best")
    network = make_network(inference="dither")
    with pytest.raises(UserError, match=r"sampling\.inference=top"):
        network.use_sampler("random")
    assert network.sampler == "learned", "the failed call changed the sampler"
    network.use_sampler("random", inference="top")
    with pytest.raises(UserError, match="random"):
        network.use_inference("dither")
