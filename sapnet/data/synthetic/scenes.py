"""Dynamic scenes: objects, motion and textures."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from sapnet.data.synthetic.motion import Path, transforms
from sapnet.data.synthetic.shapes import cut_out
from sapnet.data.synthetic.textures import backdrop


@dataclass(frozen=True)
class Mover:
    """An object without texture.

    Attributes:
        shape: Kind of shape.
        alpha: Opacity from 0 to 1.
        centre: Centre (x, y) in pixels.
        path: Motion relative to the camera.
        share: Share of the camera's motion: 1 like the background, larger for nearer objects, 0 if the camera follows
            the object.
    """

    shape: str
    alpha: Float32[np.ndarray, "side side"]
    centre: tuple[float, float]
    path: Path
    share: float

    @property
    def corner(self) -> tuple[int, int]:
        """Position (x, y) of the first pixel of `alpha` in the frame at the middle of the exposure."""
        x, y = self.centre
        return round(x - self.alpha.shape[1] / 2), round(y - self.alpha.shape[0] / 2)


@dataclass(frozen=True)
class Plan:
    """A scene without textures.

    Attributes:
        size: Height and width of the frame in pixels.
        camera: Motion of the camera.
        movers: Objects from back to front.
    """

    size: tuple[int, int]
    camera: Path
    movers: tuple[Mover, ...]


@dataclass(frozen=True)
class Layer:
    """One surface of a scene.

    Attributes:
        image: RGB from 0 to 255. The image of an object is multiplied by alpha, which is its fourth channel (0 to 1).
        corner: Position (x, y) of the first pixel in the frame at the middle of the exposure.
        path: Motion relative to the camera.
        share: Share of the camera's motion.
    """

    image: Float32[np.ndarray, "h w c"]
    corner: tuple[int, int]
    path: Path
    share: float

    def placements(
        self, camera: Path, size: tuple[int, int], times: Float[np.ndarray, "n"]
    ) -> Float[np.ndarray, "n 3 3"]:
        """Return the matrices from pixels of the image to pixels of the frame at each time."""
        height, width = self.image.shape[:2]
        place = np.eye(3)
        place[:2, 2] = self.corner
        own = (self.corner[0] + (width - 1) / 2, self.corner[1] + (height - 1) / 2)
        seen = transforms(self.share * camera.poses(times), ((size[1] - 1) / 2, (size[0] - 1) / 2))
        return seen @ transforms(self.path.poses(times), own) @ place


@dataclass(frozen=True)
class Scene:
    """A scene with textures.

    Attributes:
        size: Height and width of the frame in pixels.
        camera: Motion of the camera.
        layers: Surfaces from back to front. The first one is opaque and larger than the frame.
    """

    size: tuple[int, int]
    camera: Path
    layers: tuple[Layer, ...]


def unpainted(plan: Plan) -> Scene:
    """Return the plan as a black scene, which is sufficient to compute the extent of the blur."""
    layers = [Layer(np.zeros((*plan.size, 3), np.float32), (0, 0), Path.still(), 1.0)]
    for mover in plan.movers:
        image = np.zeros((*mover.alpha.shape, 4), np.float32)
        image[..., 3] = mover.alpha
        layers.append(Layer(image, mover.corner, mover.path, mover.share))
    return Scene(plan.size, plan.camera, tuple(layers))


def paint(rng: np.random.Generator, plan: Plan) -> Scene:
    """Return the plan with random textures; the size of the background depends on the camera's path."""
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
