"""Photos in tiles: the plan, the weights, the memory, and the restored photo."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sapnet.data.photos import Photo
from sapnet.errors import UserError
from sapnet.evaluation.photo_memory import MemoryEstimate
from sapnet.evaluation.photo_tiles import (
    OVERLAP,
    TilePlan,
    blend,
    kept_bytes,
    plan_for_memory,
    plan_tiles,
    restore_photo,
    tile_step,
)
from sapnet.evaluation.photo_ways import choose_way, tile_rules
from sapnet.models.sapnet import SAPNet

GIB = 2**30
CPU = torch.device("cpu")
PHOTO = Path("photo.jpg")


@st.composite
def plans(draw) -> tuple[TilePlan, int, int]:
    step, overlap = draw(st.sampled_from([1, 4, 16])), draw(st.integers(0, 40))
    tile = step * (-(-overlap // step) + draw(st.integers(1, 5)) * 16 // step)
    height, width = draw(st.integers(1, 120)), draw(st.integers(1, 120))
    return plan_tiles(height, width, tile, overlap, step), overlap, step


@given(plans())
@settings(max_examples=150, deadline=None)
def test_tiles_cover_every_pixel_and_their_weights_sum_to_exactly_one(drawn):
    plan, overlap, step = drawn
    owners = np.zeros((plan.rows.length, plan.columns.length), int)
    weights = torch.zeros(owners.shape)
    for tile in plan.tiles():
        owners[tile.cell] += 1
        weights[tile.box] += tile.weight
        assert tile.weight.min() >= 0
        assert all(
            whole.start <= own.start < own.stop <= whole.stop for whole, own in zip(tile.box, tile.cell, strict=True)
        )
        assert all(rows.start % step == 0 for rows in tile.box)
    assert (owners == 1).all() and (weights == 1).all()
    for side in (plan.rows, plan.columns):
        shared = [tile[1] - after[0] for tile, after in pairwise(side.spans)]
        assert all(pixels >= overlap for pixels in shared)


@given(plans())
@settings(max_examples=50, deadline=None)
def test_a_network_that_changes_nothing_returns_the_image(drawn):
    plan = drawn[0]
    image = torch.rand(3, plan.rows.length, plan.columns.length, generator=torch.Generator().manual_seed(0))
    assert (blend(plan, lambda tile: image[:, *tile.box]) - image).abs().max() <= 1e-6


def test_pixels_near_the_border_of_a_tile_are_not_used():
    side = plan_tiles(500, 500, 256).rows
    assert side.spans == ((0, 256), (128, 384), (256, 500)) and side.ramp == OVERLAP // 2
    weights = side.weights(1)
    assert weights[: 64 - 16].eq(0).all() and weights[64 + 16 : 184 - 16].eq(1).all() and weights[-48:].eq(0).all()
    steps = weights[48:80].diff()
    assert steps.min() > 0 and torch.allclose(steps, steps[0], atol=3e-4), "a straight line"


# --- the memory


def test_the_plan_of_48_megapixels_follows_the_memory_and_the_cost_of_a_pixel():
    """At 3,500 bytes per pixel the whole photo would take 157 GiB."""
    estimate, kept = MemoryEstimate(0.2 * GIB, 3500), kept_bytes(6000, 8000, CPU)
    assert 4 * 3 * 48e6 < kept < 2 * GIB
    sides = {}
    for available in (6, 8, 16, 64):
        plan = plan_for_memory(6000, 8000, estimate, available * GIB, kept)
        needed = estimate.bytes_for(*plan.tile_size) + kept
        assert needed <= available * GIB / 2
        sides[available] = (*plan.tile_size, plan.number)
    # 8 GiB: half less 1.6 GiB for the photo and 0.2 GiB leave 2.2 GiB for 3,500 bytes each: 821 pixels, in steps 768.
    assert sides == {6: (576, 576, 192), 8: (768, 768, 108), 16: (1280, 1216, 35), 64: (2048, 2752, 9)}
    assert plan_for_memory(6000, 8000, estimate, 4 * GIB, kept) is None, "not even tiles of 256"


def test_tiles_are_no_larger_than_their_number_needs():
    """At 1,000 bytes per pixel 800 pixels would fit, which would share 600 of 1,000 pixels."""
    plan = plan_for_memory(400, 1000, MemoryEstimate(0, 1000), 2 * 1000 * 400 * 800)
    assert plan.columns.spans == ((0, 576), (448, 1000)) and plan.rows.spans == ((0, 400),)


def test_a_tile_is_as_large_as_the_window_and_a_multiple_for_the_network():
    network = SAPNet(stem=4, channels=[4, 4, 4], encoder_blocks=1, decoder_blocks=1, stages=2)
    assert tile_step(network) % network.multiple == 0 and tile_step(nn.Identity()) == 64
    assert tile_rules(network, None, 320).smallest == 320
    for side, window, least in ((100, None, "256"), (320, 512, "512 for --window 512"), (300, None, "256")):
        with pytest.raises(UserError, match=f"--tile {side}: give a multiple of 64, at least {least}, or 0"):
            tile_rules(network, side, window)
    assert tile_rules(network, 0, None).side == 0 and tile_rules(network, 512, 512).side == 512


@pytest.mark.parametrize(
    ("side", "available", "expected"),
    [
        (None, 200, None),
        (
            None,
            13,
            "8000x6000 pixels take about 69.3 GiB, 13.0 GiB are available: restored in 20 tiles of 1664x1600",
        ),
        (1024, 13, "8000x6000 pixels: restored in 63 tiles of 1024x1024"),
        (1024, None, "8000x6000 pixels: restored in 63 tiles of 1024x1024"),
        (None, None, None),
        (0, 200, None),
    ],
)
def test_tiles_are_used_where_the_memory_or_the_user_asks_for_them(side, available, expected):
    rules = tile_rules(nn.Identity(), side, None)
    available = None if available is None else available * GIB
    way = choose_way(PHOTO, (6000, 8000), rules, MemoryEstimate(0, 1550), available, CPU)
    assert (way.plan.number > 1, way.pixels) == (expected is not None, 48_000_000)
    assert expected is None or way.notice == expected


@pytest.mark.parametrize(
    ("side", "available", "way_out"),
    [(None, 2, "make the image smaller first"), (0, 13, "leave out --tile 0"), (4096, 13, "leave out --tile 4096")],
)
def test_what_does_not_fit_is_refused(side, available, way_out):
    rules = tile_rules(nn.Identity(), side, None)
    with pytest.raises(UserError, match=f"8000x6000 pixels.* GiB of memory.*: {way_out}"):
        choose_way(PHOTO, (6000, 8000), rules, MemoryEstimate(0, 1550), available * GIB, CPU)


# --- the restored photo


def test_each_pixel_of_a_points_picture_comes_from_the_tile_that_owns_it():
    levels = np.random.default_rng(0).integers(0, 65536, (300, 420, 4), dtype=np.uint16)
    photo, plan, done = Photo(levels, b"exif"), plan_tiles(300, 420, 192), []

    def restore(colours):
        return 1 - colours, {2: torch.full_like(colours, len(done) / 255)}

    restored, pictures = restore_photo(photo, plan, restore, done.append)
    assert done == list(range(1, plan.number + 1)) and plan.number == 6
    np.testing.assert_array_equal(restored.levels[..., :3], 65535 - levels[..., :3])
    np.testing.assert_array_equal(restored.levels[..., 3], levels[..., 3])
    assert restored.exif == b"exif" and list(pictures) == [2]
    for number, tile in enumerate(plan.tiles()):
        assert (pictures[2][tile.cell] == number).all()


def blurred(height: int, width: int) -> torch.Tensor:
    noise = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(noise, size=(height, width), mode="bicubic").clamp(0, 1)[0]


@torch.no_grad()
def test_a_convolutional_network_gives_the_whole_image_where_the_overlap_covers_what_it_sees():
    """A quarter of the overlap, 16 pixels, is not used: more than the 15 pixels that this network sees to each side."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 4, stride=4), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, stride=4), nn.Conv2d(3, 3, 3, padding=1),
    )  # fmt: skip
    image, plan = blurred(400, 520), plan_tiles(400, 520, 192)
    whole = network(image[None])[0]
    assert plan.number == 12
    assert (blend(plan, lambda tile: network(image[:, *tile.box][None])[0]) - whole).abs().max() < 1e-6
    misplaced = plan_tiles(400, 520, 196, 64, 2)
    assert (blend(misplaced, lambda tile: network(image[:, *tile.box][None])[0]) - whole).abs().max() > 1e-3
