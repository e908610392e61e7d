"""Rendered exposures compared with geometry and averaging."""

import itertools

import numpy as np
import pytest

from sapnet.data.synthetic.dataset import SyntheticScenes
from sapnet.data.synthetic.motion import Path, transforms
from sapnet.data.synthetic.render import expose, exposure_times, largest_step, subframe
from sapnet.data.synthetic.scenes import Layer, Scene

SIZE = (40, 56)
MARGIN = 30


def straight(dx: float, dy: float) -> Path:
    """A uniform translation by (dx, dy) pixels during the exposure."""
    coefficients = np.zeros((4, 3))
    coefficients[:2, 0] = dx / 2, dy / 2
    return Path(coefficients)


def ground(image: np.ndarray | None = None) -> Layer:
    if image is None:
        image = np.random.default_rng(3).uniform(0, 255, (SIZE[0] + 2 * MARGIN, SIZE[1] + 2 * MARGIN, 3))
    return Layer(image.astype(np.float32), (-MARGIN, -MARGIN), Path.still(), 1.0)


def square(path: Path, share: float = 1.0, value: float = 255.0) -> Layer:
    """A plain square of 12 pixels in the middle of the frame with a transparent border."""
    image = np.zeros((16, 16, 4), np.float32)
    image[2:-2, 2:-2] = value, value, value, 1.0
    return Layer(image, (SIZE[1] // 2 - 8, SIZE[0] // 2 - 8), path, share)


def turning(angle: float) -> Path:
    coefficients = np.zeros((4, 3))
    coefficients[2, 0] = angle / 2
    return Path(coefficients)


@pytest.mark.parametrize("shift", [(7.0, 0.0), (0.0, 3.5), (6.0, -8.0), (18.0, 0.25)])
def test_extent_of_a_translating_camera_is_its_shift(shift: tuple[float, float]) -> None:
    shot = expose(Scene(SIZE, straight(*shift), (ground(),)), 2.2)
    np.testing.assert_allclose(shot.extent, np.hypot(*shift), atol=1e-3)


def test_extent_of_a_rotating_camera_is_the_arc() -> None:
    angle = 0.2
    shot = expose(Scene(SIZE, turning(angle), (ground(),)), 2.2)
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    arc = angle * np.hypot(ys - (SIZE[0] - 1) / 2, xs - (SIZE[1] - 1) / 2)
    np.testing.assert_allclose(shot.extent, arc, rtol=1e-3, atol=1e-3)


def test_extent_of_a_returning_path_counts_both_directions() -> None:
    coefficients = np.zeros((4, 3))
    coefficients[0, 1] = 5.0  # x = 5 t^2: five pixels back, five pixels forth
    shot = expose(Scene(SIZE, Path(coefficients), (ground(),)), 2.2)
    np.testing.assert_allclose(shot.extent, 10.0, atol=1e-3)


def test_blurred_equals_sharp_without_motion() -> None:
    shot = expose(Scene(SIZE, Path.still(), (ground(), square(Path.still()))), 2.2)
    np.testing.assert_array_equal(shot.blurred, shot.sharp)
    np.testing.assert_array_equal(shot.extent, 0.0)


def test_object_and_background_have_different_extents() -> None:
    scene = Scene(SIZE, straight(2.0, 0.0), (ground(), square(straight(0.0, 9.0)), square(Path.still(), 0.0)))
    shot = expose(scene, 2.2)
    assert shot.extent[2, 2] == pytest.approx(2.0, abs=1e-3)
    centre = shot.extent[SIZE[0] // 2 - 6 : SIZE[0] // 2 + 6, SIZE[1] // 2 - 6 : SIZE[1] // 2 + 6]
    np.testing.assert_allclose(centre, 0.0, atol=1e-6)  # the square in front, which the camera follows
    behind = expose(Scene(SIZE, scene.camera, scene.layers[:2]), 2.2)
    assert behind.extent[SIZE[0] // 2, SIZE[1] // 2] == pytest.approx(np.hypot(2.0, 9.0), abs=1e-3)


@pytest.mark.parametrize("shift", [6, 14])
def test_edge_is_blurred_over_the_extent(shift: int) -> None:
    image = np.zeros((SIZE[0] + 2 * MARGIN, SIZE[1] + 2 * MARGIN, 3))
    image[:, MARGIN + SIZE[1] // 2 :] = 255.0
    scene = Scene(SIZE, straight(shift, 0.0), (ground(image),))
    shot = expose(scene, None)
    row = shot.blurred[SIZE[0] // 2, :, 0].astype(int)
    assert shift - 1 <= ((row > 0) & (row < 255)).sum() <= shift + 1
    slope = np.diff(row)[(row[:-1] > 20) & (row[1:] < 235)]
    step = shift / (len(exposure_times(scene)) - 1)
    assert slope.mean() == pytest.approx(255 / (shift + step), rel=0.05)  # n frames a step apart smear over n steps


@pytest.mark.parametrize("gamma", [2.2, None])
def test_blurred_is_the_mean_and_sharp_the_middle_of_the_subframes(gamma: float | None) -> None:
    scene = SyntheticScenes("train", 40, (48, 64)).scene(7)
    times = exposure_times(scene)
    moves = [layer.placements(scene.camera, scene.size, times) for layer in scene.layers]
    frames = np.stack([subframe(scene, [move[k] for move in moves]) for k in range(len(times))])
    stored = frames.astype(np.float64) / 255.0
    mean = stored.mean(0) if gamma is None else (stored**gamma).mean(0) ** (1 / gamma)
    shot = expose(scene, gamma)
    assert np.abs(shot.blurred - 255.0 * mean).max() <= 0.501
    np.testing.assert_array_equal(shot.sharp, frames[len(frames) // 2])


def test_mean_of_black_and_white_is_lighter_in_linear_light() -> None:
    image = np.zeros((SIZE[0] + 2 * MARGIN, SIZE[1] + 2 * MARGIN, 3))
    image[:, MARGIN + SIZE[1] // 2 :] = 255.0
    scene = Scene(SIZE, straight(20.0, 0.0), (ground(image),))
    stored, linear = expose(scene, None), expose(scene, 2.2)
    middle = (SIZE[0] // 2, SIZE[1] // 2, 0)
    share = stored.blurred[middle] / 255.0
    assert 0.4 < share < 0.6
    assert linear.blurred[middle] == pytest.approx(255.0 * share ** (1 / 2.2), abs=2.0)
    np.testing.assert_array_equal(stored.sharp, linear.sharp)


@pytest.mark.parametrize("split", ["train", "test"])
def test_subframes_are_at_most_a_pixel_apart(split: str) -> None:
    dataset = SyntheticScenes(split, 60, (48, 72))
    for index in range(30):
        scene = dataset.scene(index)
        times = exposure_times(scene)
        assert len(times) % 2 == 1 and times[len(times) // 2] == 0.0
        worst = 0.0
        for number, layer in enumerate(scene.layers):
            moves = layer.placements(scene.camera, scene.size, times)
            ys, xs = np.nonzero(np.ones(scene.size)) if number == 0 else np.nonzero(layer.image[..., 3])
            points = np.stack([xs, ys, np.ones_like(xs)]).astype(float)
            for before, after in itertools.pairwise(moves):
                start = np.linalg.inv(before) @ points if number == 0 else points
                step = ((after - before) @ start)[:2]
                worst = max(worst, np.hypot(*step).max())
        assert worst <= 1.0 + 1e-9
        assert worst <= largest_step(scene, times) + 1e-9


def test_background_is_large_enough_for_every_subframe() -> None:
    """The mirrored border of a smaller background would be visible."""
    dataset = SyntheticScenes("train", 100, (32, 64))
    for index in range(40):
        scene = dataset.scene(index)
        layer = scene.layers[0]
        back = np.linalg.inv(layer.placements(scene.camera, scene.size, exposure_times(scene)))
        corners = np.array([[0, 63, 0, 63], [0, 0, 31, 31], [1, 1, 1, 1]])
        x, y = np.moveaxis((back @ corners)[:, :2], 1, 0)
        height, width = layer.image.shape[:2]
        assert x.min() >= 0 and y.min() >= 0 and x.max() <= width - 1 and y.max() <= height - 1


def test_transforms_keep_the_centre_and_add_the_shift() -> None:
    matrices = transforms(np.array([[3.0, -2.0, 0.7, 0.3], [0.0, 0.0, -1.1, 0.0]]), (11.0, 5.0))
    np.testing.assert_allclose(matrices @ [11.0, 5.0, 1.0], [[14.0, 3.0, 1.0], [11.0, 5.0, 1.0]])
    np.testing.assert_allclose(np.linalg.det(matrices), [np.exp(0.6), 1.0])
