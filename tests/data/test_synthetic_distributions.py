"""Distributions of synthetic scenes: motion, covered area and amount of blur."""

import itertools

import numpy as np
import pytest
import torch

from sapnet.data.synthetic import SyntheticScenes, distributions
from sapnet.data.synthetic.distributions import DISTRIBUTIONS, draw_plan
from sapnet.data.synthetic.render import expose, extent_map
from sapnet.data.synthetic.scenes import paint, unpainted
from sapnet.errors import UserError


@pytest.fixture(scope="module")
def many() -> dict[str, list[dict]]:
    """A hundred scenes of each distribution, by its name."""
    sets = {name: SyntheticScenes("train", 100, (96, 96), distribution=name) for name in DISTRIBUTIONS}
    return {name: [dataset[index] for index in range(100)] for name, dataset in sets.items()}


@pytest.fixture(scope="module", params=[(64, 64), (128, 128)])
def local(request: pytest.FixtureRequest) -> list[tuple]:
    """Sixty scenes of `synthetic_local` and their extents."""
    dataset = SyntheticScenes("val", 60, request.param, distribution="synthetic_local")
    scenes = [dataset.scene(index) for index in range(60)]
    return [(scene, extent_map(scene)) for scene in scenes]


def psnr(item: dict) -> float:
    return -10.0 * float(torch.log10(((item["blurred"] - item["sharp"]) ** 2).mean().clamp_min(1e-9)))


def extents(items: list[dict]) -> torch.Tensor:
    return torch.stack([item["extent"][0] for item in items]).flatten(1)


def test_local_motion_covers_the_configured_area(local: list[tuple]) -> None:
    shares = np.array([(extent > 1).mean() for _, extent in local])
    assert shares.min() >= 0.10 and shares.max() <= 0.25
    assert np.ptp(shares) > 0.1


def test_local_motion_has_a_still_background(local: list[tuple]) -> None:
    for scene, extent in local:
        assert not scene.camera.coefficients.any() and not scene.layers[0].path.coefficients.any()
        assert ((extent == 0.0) | ((extent >= 2.0) & (extent <= 10.0))).all()
        assert (extent == 0.0).mean() >= 0.75


def test_local_motion_has_one_to_four_moving_objects(local: list[tuple]) -> None:
    """Without still objects a policy could detect objects instead of motion."""
    counts = []
    for scene, _ in local:
        paths = [layer.path for layer in scene.layers[1:]]
        moving = [path for path in paths if path.coefficients.any()]
        counts.append((len(moving), len(paths) - len(moving)))
        for path in moving:
            line = path.poses(np.linspace(-1.0, 1.0, 201))[:, :2]
            assert 2.99 <= np.linalg.norm(np.diff(line, axis=0), axis=1).sum() <= 8.01
    moving, standing = zip(*counts, strict=True)
    assert set(moving) == {1, 2, 3, 4} and set(standing) == {1, 2, 3}


def test_local_motion_has_objects_in_random_order(local: list[tuple]) -> None:
    last = [bool(scene.layers[-1].path.coefficients.any()) for scene, _ in local]
    assert 0.2 < np.mean(last) < 0.8


def test_objects_of_synthetic_are_still_or_move_by_2_to_10_pixels() -> None:
    rng, lengths = np.random.default_rng(1), []
    for _ in range(100):
        plan = draw_plan(DISTRIBUTIONS["synthetic"], rng, (96, 96))
        for path in (plan.camera, *(mover.path for mover in plan.movers)):
            line = path.poses(np.linspace(-1.0, 1.0, 201))[:, :2]
            lengths.append(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())
    lengths = np.array(lengths)
    moving = lengths[lengths > 0.51]
    assert moving.min() > 1.99 and moving.max() < 10.01 and 3.0 < np.median(moving) < 4.5
    assert 0.2 < 1 - len(moving) / len(lengths) < 0.5


def test_blur_of_synthetic_suits_crops_of_64_pixels(many: dict[str, list[dict]]) -> None:
    extent = extents(many["synthetic"])
    assert extent.max() <= 10.0 and extent.max() > 9.0
    moving = extent[extent > 1.0]
    assert (moving >= 2.0).float().mean() > 0.9
    assert 0.5 < len(moving) / extent.numel() < 0.9
    mixed = ((extent < 1).float().mean(1) > 0.05) & ((extent > 4).float().mean(1) > 0.05)
    assert mixed.float().mean() > 0.2


@pytest.mark.parametrize(("name", "low", "high"), [("synthetic", 28.5, 31.5), ("synthetic_local", 30.0, 36.0)])
def test_mean_psnr_of_the_blurred_images(many: dict[str, list[dict]], name: str, low: float, high: float) -> None:
    values = np.array([psnr(item) for item in many[name]])
    assert low < values.mean() < high
    assert 2.5 < values.std() < 6.5


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_error_grows_with_the_extent(many: dict[str, list[dict]], name: str) -> None:
    """Blurred and sharp agree where the extent is small, and differ where it is large."""
    error = torch.stack([(item["blurred"] - item["sharp"]).abs().mean(0) for item in many[name]]).flatten()
    extent = extents(many[name]).flatten()
    steps = [error[(extent >= low) & (extent < high)].mean() for low, high in ((0, 1), (1, 3), (3, 6), (6, 99))]
    assert all(two > 1.3 * one for one, two in itertools.pairwise(steps))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_extent_of_a_plan_equals_that_of_the_painted_scene(name: str) -> None:
    plan = draw_plan(DISTRIBUTIONS[name], np.random.default_rng(3), (64, 96))
    np.testing.assert_array_equal(
        extent_map(unpainted(plan)), expose(paint(np.random.default_rng(4), plan), 2.2).extent
    )


def test_drawing_stops_if_no_plan_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "_DRAWS", 20)

    class Never:
        draw = staticmethod(DISTRIBUTIONS["synthetic"].draw)

        def accepts(self, extent: np.ndarray) -> bool:
            return False

    with pytest.raises(UserError, match=r"size is \(32, 32\): no scene out of 20"):
        draw_plan(Never(), np.random.default_rng(0), (32, 32))


def test_distributions_give_different_scenes() -> None:
    one, two = (SyntheticScenes("test", 1, (64, 64), distribution=name)[0] for name in DISTRIBUTIONS)
    assert one["name"] == two["name"] and not torch.equal(one["sharp"], two["sharp"])
