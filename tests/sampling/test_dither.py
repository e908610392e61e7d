"""Dithered points: exactly as many as wanted, where they may lie, and with the density of the map."""

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
from tests.sampling.contexts import Table, check_points, make_context

SEEDS = st.integers(0, 2**31)


def random_map(height, width, seed, mean=0.25):
    """Uneven over decades, smooth in places: as a policy's map, but never above 1."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, height // 8 + 2, width // 8 + 2, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[:, 0]
    p = torch.sigmoid(4 * smooth + torch.randn(1, height, width, generator=rng) - 1)
    return p * min(mean / p.mean().item(), 1 / p.max().item())


@pytest.mark.parametrize("side", [1, 2, 8, 32])
def test_the_curve_goes_from_neighbour_to_neighbour(side):
    order = hilbert_order(side, side)
    y, x = order // side, order % side
    assert order.sort().values.tolist() == list(range(side**2))
    assert (y.diff().abs() + x.diff().abs() == 1).all()


@pytest.mark.parametrize(("height", "width"), [(12, 40), (7, 5), (4, 9)])
def test_aligned_squares_are_one_stretch_of_the_curve_on_any_grid(height, width):
    place = torch.empty(height * width, dtype=torch.int64)
    place[hilbert_order(height, width)] = torch.arange(height * width)
    for side in (2, 4):
        squares = place.view(height, width)[: height // side * side, : width // side * side]
        squares = squares.unfold(0, side, side).unfold(1, side, side).flatten(2)
        assert (squares.amax(2) - squares.amin(2) == side**2 - 1).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.floats(0.1, 30), SEEDS, st.data())
def test_exactly_as_many_points_as_wanted_and_none_in_the_padding(height, width, share, power, seed, data):
    """Whatever the map: nearly 0 almost everywhere, 1 in places, 0 in others, too few or too many in sum."""
    rng = torch.Generator().manual_seed(seed)
    p = torch.rand(3, height, width, generator=rng).pow(power) * (torch.rand(3, 1, 1, generator=rng) < 0.8)
    p[1] = p[1].round()
    extents = [(height, width), (data.draw(st.integers(0, height)), data.draw(st.integers(0, width))), (height, 1)]
    counts = [round(share * rows * columns) for rows, columns in extents]
    valid = extent_mask(extents, height, width)
    mask = dither_mask(p, counts, valid)
    assert mask.flatten(1).sum(1).tolist() == counts
    assert not (mask & ~valid).any()
    assert torch.equal(mask, dither_mask(p, counts, valid)), "no chance is involved"
    alone = dither_mask(p[2:], counts[2:], valid[2:])
    assert torch.equal(mask[2:], alone), "maps do not depend on their neighbours in the batch"


@settings(deadline=None, max_examples=50)
@given(st.integers(8, 80), st.integers(8, 80), st.floats(0.05, 0.3), SEEDS)
def test_every_region_holds_about_what_its_probabilities_sum_to(height, width, mean, seed):
    """Less than one off in an aligned square; in any rectangle, whose border cuts the curve often, little more."""
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


def test_the_density_follows_the_map_where_the_top_would_leave_positions_out():
    """Four bands of probability: each gets its share, within one point."""
    p = torch.tensor([0.05, 0.15, 0.3, 0.5]).repeat_interleave(16)[None, :, None].expand(1, 64, 64)
    bands = dither_mask(p, [1024])[0].view(4, 16, 64).sum((1, 2)).double()
    assert (bands - 1024 * torch.tensor([0.05, 0.15, 0.3, 0.5]).double()).abs().max() <= 2


def test_densities_above_one_are_taken_and_the_rest_shares_what_is_left():
    p = torch.full((1, 16, 16), 0.1)
    p[:, :4, :4] = 1
    mask = dither_mask(p, [100])[0]
    assert mask[:4, :4].all() and mask.sum() == 100
    assert abs(mask[8:, 8:].sum().item() - 64 * 84 / 240) < 1


def test_a_flat_map_gives_one_point_of_every_four():
    mask = dither_mask(torch.full((1, 32, 48), 0.3), [32 * 48 // 4])[0]
    assert (mask.unfold(0, 2, 2).unfold(1, 2, 2).sum((2, 3)) == 1).float().mean() > 0.95


@pytest.mark.parametrize("control", ["calibrated", "indicator"])
@pytest.mark.parametrize("window", [None, (16, 16)])
def test_a_learned_sampler_dithers_its_probabilities(control, window):
    logits = 2 * torch.randn(1, 32, 48, generator=torch.Generator().manual_seed(0))
    context = make_context((29, 43), (32, 48), (1, 1))
    if window:
        context = replace(context, windows=cover(32, 48, window, 8))
    sampler = LearnedSampler(Table(logits), control, budget=0.1).eval()
    dithered, top = sampler(context, "dither"), sampler(context, "top")
    check_points(dithered, context, 0.1, exact=True)
    for r, p in dithered.probabilities.items():
        chosen = dithered.mask(r)[0, :: r // 2, :: r // 2]
        assert not torch.equal(dithered.points[r], top.points[r])
        assert p[0, chosen].mean() > p[0].mean(), "likely positions are taken more often"
    assert not dithered.actions


def network(**settings):
    torch.manual_seed(0)
    made = AdaptiveNetwork(SAPNet(4, (4, 4, 4), encoder_blocks=1, decoder_blocks=1, sampled=True), **settings).eval()
    for sampler in made.samplers.values():
        for parameter in sampler.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def test_a_network_dithers_at_inference_and_draws_in_training():
    made, blurred = network(inference="dither"), torch.rand(1, 3, 32, 32)
    used, asked, top = made.trace(blurred), made.trace(blurred, mode="dither"), made.trace(blurred, mode="top")
    assert torch.equal(used.sampled_points[1].points[2], asked.sampled_points[1].points[2])
    assert not torch.equal(used.sampled_points[1].points[2], top.sampled_points[1].points[2])
    made.use_inference("top")
    assert torch.equal(made.trace(blurred).sampled_points[1].points[2], top.sampled_points[1].points[2])
    made.use_inference("dither")
    assert made.train().trace(blurred).sampled_points[1].actions


def test_controls_and_unknown_names_are_users_mistakes():
    with pytest.raises(UserError, match="learned"):
        network(sampler="oracle", inference="dither")
    with pytest.raises(UserError, match="'best'"):
        network(inference="best")
    made = network(inference="dither")
    with pytest.raises(UserError, match=r"sampling\.inference=top"):
        made.use_sampler("random")
    assert made.sampler == "learned", "a refusal changes nothing"
    made.use_sampler("random", inference="top")
    with pytest.raises(UserError, match="random"):
        made.use_inference("dither")
