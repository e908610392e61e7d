"""A dynamic scene: what is in it, how it moves, and its textures."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from sapnet.data.synthetic.motion import Path, transforms
from sapnet.data.synthetic.shapes import cut_out
from sapnet.data.synthetic.textures import backdrop


@dataclass(frozen=True)
class Mover:
    """Plan of one object: shape, opacity (0 to 1), centre (x, y) in pixels, own path, and how the camera moves it.

    `share` is the part of the camera's motion that it takes on: 1 as the background, more if it is nearer, 0 if the
    camera follows it.
    """

    shape: str
    alpha: Float32[np.ndarray, "side side"]
    centre: tuple[float, float]
    path: Path
    share: float

    @property
    def corner(self) -> tuple[int, int]:
        """Where the first pixel (x, y) of `alpha` lies in the frame at the middle of the exposure."""
        x, y = self.centre
        return round(x - self.alpha.shape[1] / 2), round(y - self.alpha.shape[0] / 2)


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


def unpainted(plan: Plan) -> Scene:
    """The plan as a black scene: enough for the blur's extent, which depends on outlines and paths alone."""
    layers = [Layer(np.zeros((*plan.size, 3), np.float32), (0, 0), Path.still(), 1.0)]
    for mover in plan.movers:
        image = np.zeros((*mover.alpha.shape, 4), np.float32)
        image[..., 3] = mover.alpha
        layers.append(Layer(image, mover.corner, mover.path, mover.share))
    return Scene(plan.size, plan.camera, tuple(layers))


def paint(rng: np.random.Generator, plan: Plan) -> Scene:
    """The plan with random textures on it; the background is as large as the camera's path makes it."""
    height, width = plan.size
    margin = _margin(plan)
    ground = backdrop(rng, height + 2 * margin, width + 2 * margin)
    layers = [Layer(ground, (-margin, -margin), Path.still(), 1.0)]
    for mover in plan.movers:
        layers.append(Layer(cut_out(rng, mover.shape, mover.alpha), mover.corner, mover.path, mover.share))
    return Scene(plan.size, plan.camera, tuple(layers))


def _margin(plan: Plan) -> int:
    height, width = plan.size
    poses = plan.camera.poses(np.linspace(-1.0, 1.0, 65))
    back = np.linalg.inv(transforms(poses, ((width - 1) / 2, (height - 1) / 2)))
    corners = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]], float)
    seen = (back @ corners)[:, :2]
    over = np.maximum(-seen, seen - np.array([[width - 1], [height - 1]]))
    return int(np.ceil(max(over.max(), 0.0))) + 3
