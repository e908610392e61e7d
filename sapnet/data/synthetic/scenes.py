"""A dynamic scene: what is in it, how it moves, and the drawing of both from random streams."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from sapnet.data.synthetic.motion import Path, draw_length, draw_path, transforms
from sapnet.data.synthetic.shapes import SHAPES, cut_out
from sapnet.data.synthetic.textures import backdrop


@dataclass(frozen=True)
class Mover:
    """Plan of one object: shape, radius and centre (x, y) in pixels, its own path, and how the camera moves it.

    `share` is the part of the camera's motion that it takes on: 1 as the background, more if it is nearer, 0 if the
    camera follows it.
    """

    shape: str
    radius: float
    centre: tuple[float, float]
    path: Path
    share: float


@dataclass(frozen=True)
class Plan:
    """All that moves in a scene of `size` (height, width), without its textures."""

    size: tuple[int, int]
    camera: Path
    movers: tuple[Mover, ...]


@dataclass(frozen=True)
class Layer:
    """One surface of a scene.

    `image` holds RGB of 0 to 255, for an object multiplied by its alpha, which is the fourth channel (0 to 1); `corner`
    is where its first pixel (x, y) lies in the frame at the middle of the exposure.
    """

    image: Float32[np.ndarray, "h w c"]
    corner: tuple[int, int]
    path: Path
    share: float

    def placements(
        self, camera: Path, size: tuple[int, int], times: Float[np.ndarray, "n"]
    ) -> Float[np.ndarray, "n 3 3"]:
        """Matrices from the image's pixels to the frame's pixels at each of the times."""
        height, width = self.image.shape[:2]
        place = np.eye(3)
        place[:2, 2] = self.corner
        own = (self.corner[0] + (width - 1) / 2, self.corner[1] + (height - 1) / 2)
        seen = transforms(self.share * camera.poses(times), ((size[1] - 1) / 2, (size[0] - 1) / 2))
        return seen @ transforms(self.path.poses(times), own) @ place


@dataclass(frozen=True)
class Scene:
    """Layers from back to front, the first one opaque and larger than the frame, under a moving camera."""

    size: tuple[int, int]
    camera: Path
    layers: tuple[Layer, ...]


def draw_plan(rng: np.random.Generator, size: tuple[int, int]) -> Plan:
    """A random plan: a camera from steady to shaking and two to six objects from still to fast.

    Most images hold still and blurred regions both: before a steady camera the first object moves, and a moving camera
    often follows it.
    """
    radius = 0.5 * float(np.hypot(*size))
    length = draw_length(rng, still=0.25, median=5.5, spread=0.65, longest=16.0)
    camera = draw_path(rng, length, 0.15 * length, 0.1 * length, radius, bend=0.8, level=0.0)
    steady, followed = length < 2.0, length > 3.0 and rng.random() < 0.6
    movers = []
    for number in range(int(rng.integers(2, 7))):
        first = number == 0
        extent = min(size) * float(np.clip(0.2 * np.exp(0.4 * rng.standard_normal()), 0.07, 0.42))
        own = draw_length(rng, still=0.3, median=6.0, spread=0.65, longest=16.0)
        if first and steady:
            own = max(own, float(rng.uniform(6.0, 15.0)))
        if first and followed:
            own = float(rng.uniform(0.0, 0.8))
        path = draw_path(rng, own, 0.2 * own, 0.1 * own, extent, bend=0.4, level=0.4)
        share = 0.0 if first and followed else float(rng.uniform(1.0, 1.25))
        centre = (float(rng.uniform(0.1, 0.9) * size[1]), float(rng.uniform(0.1, 0.9) * size[0]))
        movers.append(Mover(SHAPES[rng.integers(len(SHAPES))], extent, centre, path, share))
    return Plan(size, camera, tuple(movers))


def paint(rng: np.random.Generator, plan: Plan) -> Scene:
    """The plan with random textures on it; the background is as large as the camera's path makes it."""
    height, width = plan.size
    margin = _margin(plan)
    ground = backdrop(rng, height + 2 * margin, width + 2 * margin)
    layers = [Layer(ground, (-margin, -margin), Path.still(), 1.0)]
    for mover in plan.movers:
        image = cut_out(rng, mover.shape, mover.radius)
        x, y = mover.centre
        corner = (round(x - image.shape[1] / 2), round(y - image.shape[0] / 2))
        layers.append(Layer(image, corner, mover.path, mover.share))
    return Scene(plan.size, plan.camera, tuple(layers))


def _margin(plan: Plan) -> int:
    height, width = plan.size
    poses = plan.camera.poses(np.linspace(-1.0, 1.0, 65))
    back = np.linalg.inv(transforms(poses, ((width - 1) / 2, (height - 1) / 2)))
    corners = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]], float)
    seen = (back @ corners)[:, :2]
    over = np.maximum(-seen, seen - np.array([[width - 1], [height - 1]]))
    return int(np.ceil(max(over.max(), 0.0))) + 3
