"""Named distributions of scenes: which parts move, how far, and over how much of the image."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from sapnet.data.synthetic.motion import Path, PathLengths, draw_path
from sapnet.data.synthetic.render import extent_map
from sapnet.data.synthetic.scenes import Mover, Plan, unpainted
from sapnet.data.synthetic.shapes import SHAPES, draw_alpha
from sapnet.errors import UserError

MOVING = 1.0  # pixel: a surface whose path is longer counts as moving
_DRAWS = 1000  # largest number of plans drawn for a scene; about two in three are accepted


@runtime_checkable
class Distribution(Protocol):
    """A distribution of plans, with a condition that a plan must meet."""

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Plan:
        """Draw a plan for an image of `size` (height, width)."""
        ...

    def accepts(self, extent: Float32[np.ndarray, "h w"]) -> bool:
        """Return whether a plan with this blur extent in pixels is accepted."""
        ...


@dataclass(frozen=True)
class CameraAndObjects:
    """A still or moving camera, and two to six still or moving objects.

    Many images contain both still and blurred regions: with a still camera the first object moves, and a moving camera
    often follows it.

    Attributes:
        camera: Lengths of the camera's path.
        objects: Lengths of the objects' paths relative to the camera.
        longest: Upper limit of the path of a visible surface during the exposure in pixels.
    """

    camera: PathLengths
    objects: PathLengths
    longest: float

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Plan:
        """Draw a plan for an image of `size` (height, width)."""
        length = self.camera.draw(rng)
        camera = draw_path(rng, length, 0.15 * length, 0.1 * length, 0.5 * float(np.hypot(*size)), bend=0.8, level=0.0)
        steady, followed = length < MOVING, length > 2.5 and rng.random() < 0.6
        movers = []
        for number in range(int(rng.integers(2, 7))):
            first = number == 0
            own = self.objects.draw(rng)
            if first and steady:
                own = max(own, float(rng.uniform(4.0, 9.0)))
            if first and followed:
                own = float(rng.uniform(0.0, 0.5))
            share = 0.0 if first and followed else float(rng.uniform(1.0, 1.25))
            movers.append(_draw_mover(rng, size, _draw_radius(rng, size), own, share))
        return Plan(size, camera, tuple(movers))

    def accepts(self, extent: Float32[np.ndarray, "h w"]) -> bool:
        """Return whether no surface moves farther than `longest`."""
        return float(extent.max()) <= self.longest


@dataclass(frozen=True)
class LocalMotion:
    """Moving and still objects before a still camera and a still background.

    Attributes:
        moving: Smallest and largest number of moving objects.
        standing: Smallest and largest number of still objects.
        path: Shortest and longest path of the centre of a moving object in pixels.
        area: Smallest and largest share of the image covered by moving objects at the middle of the exposure.
        extents: Shortest and longest path of any point of a moving object in pixels; objects also rotate and zoom.
    """

    moving: tuple[int, int]
    standing: tuple[int, int]
    path: tuple[float, float]
    area: tuple[float, float]
    extents: tuple[float, float]

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Plan:
        """Draw a plan for an image of `size` (height, width)."""
        moving, standing = (int(rng.integers(low, high + 1)) for low, high in (self.moving, self.standing))
        # Squared radii divide the area. A shape fills about 0.6 of its circle, and other objects cover a part of it.
        parts = np.exp(0.5 * rng.standard_normal(moving))
        squares = rng.uniform(*self.area) * size[0] * size[1] * parts / parts.sum() / (0.55 * np.pi)
        movers = [_draw_mover(rng, size, float(np.sqrt(square)), rng.uniform(*self.path), 1.0) for square in squares]
        movers += [_draw_mover(rng, size, _draw_radius(rng, size), 0.0, 1.0) for _ in range(standing)]
        order = rng.permutation(len(movers))
        return Plan(size, Path.still(), tuple(movers[number] for number in order))

    def accepts(self, extent: Float32[np.ndarray, "h w"]) -> bool:
        """Return whether the covered area and the path of every moving point are in range."""
        moves = extent > MOVING
        if not self.area[0] <= moves.mean() <= self.area[1]:
            return False
        return bool(self.extents[0] <= extent[moves].min() and extent[moves].max() <= self.extents[1])


# Path lengths suit crops of 64x64: a quarter of the blur of about 10 to 40 pixels in the paper's 256x256 crops.
DISTRIBUTIONS: dict[str, Distribution] = {
    "synthetic": CameraAndObjects(
        camera=PathLengths(still=0.25, median=3.0, spread=0.5, shortest=2.0, longest=10.0),
        objects=PathLengths(still=0.3, median=3.75, spread=0.5, shortest=2.0, longest=10.0),
        longest=10.0,
    ),
    "synthetic_local": LocalMotion(
        moving=(1, 4), standing=(1, 3), path=(3.0, 8.0), area=(0.10, 0.25), extents=(2.0, 10.0)
    ),
}


def draw_plan(distribution: Distribution, rng: np.random.Generator, size: tuple[int, int]) -> Plan:
    """Draw plans until the distribution accepts one.

    Args:
        distribution: The distribution.
        rng: Random generator.
        size: Height and width of the image in pixels.

    Raises:
        UserError: No plan of this size is accepted.
    """
    for _ in range(_DRAWS):
        plan = distribution.draw(rng, size)
        if distribution.accepts(extent_map(unpainted(plan))):
            return plan
    raise UserError(f"size is {tuple(size)}: no scene out of {_DRAWS} fits it, choose a size nearer to a square")


def _draw_radius(rng: np.random.Generator, size: tuple[int, int]) -> float:
    return min(size) * float(np.clip(0.2 * np.exp(0.4 * rng.standard_normal()), 0.07, 0.42))


def _draw_mover(rng: np.random.Generator, size: tuple[int, int], radius: float, length: float, share: float) -> Mover:
    path = draw_path(rng, length, 0.2 * length, 0.1 * length, radius, bend=0.4, level=0.4)
    shape = SHAPES[rng.integers(len(SHAPES))]
    centre = (float(rng.uniform(0.1, 0.9) * size[1]), float(rng.uniform(0.1, 0.9) * size[0]))
    return Mover(shape, draw_alpha(rng, shape, radius), centre, path, share)
