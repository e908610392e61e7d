"""Smooth paths of camera and objects during one exposure."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

MIDDLE = np.zeros(1)  # time of the sharp image; the exposure lasts from -1 to 1


@dataclass(frozen=True)
class Path:
    """Cubic motion during an exposure, zero at its middle.

    Attributes:
        coefficients: Coefficients of t, t^2 and t^3 (t from -1 to 1) for x and y (pixels), the angle (radians) and the
            logarithm of the zoom.
    """

    coefficients: Float[np.ndarray, "4 3"]

    def poses(self, times: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n 4"]:
        """Return x, y, angle and log zoom at each time."""
        return times[:, None] ** np.arange(1, 4) @ self.coefficients.T

    @classmethod
    def still(cls) -> "Path":
        """Return a path without motion."""
        return cls(np.zeros((4, 3)))


def transforms(
    poses: Float[np.ndarray, "n 4"], centre: tuple[float, float] | Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 3 3"]:
    """Return homogeneous matrices that rotate and zoom about `centre` (x, y) and then translate."""
    x, y, angle, zoom = poses.T
    cos, sin = np.exp(zoom) * np.cos(angle), np.exp(zoom) * np.sin(angle)
    cx, cy = np.broadcast_to(centre, (len(poses), 2)).T
    zero, one = np.zeros_like(x), np.ones_like(x)
    rows = [
        [cos, -sin, cx + x - cos * cx + sin * cy],
        [sin, cos, cy + y - sin * cx - cos * cy],
        [zero, zero, one],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


@dataclass(frozen=True)
class PathLengths:
    """Distribution of path lengths in pixels: at most 0.4 with probability `still`, otherwise log-normal, clipped.

    Attributes:
        still: Probability of nearly no motion.
        median: Median of the log-normal part.
        spread: Standard deviation of the logarithm.
        shortest: Lower limit of the log-normal part.
        longest: Upper limit of the log-normal part.
    """

    still: float
    median: float
    spread: float
    shortest: float
    longest: float

    def draw(self, rng: np.random.Generator) -> float:
        """Draw one length."""
        if rng.random() < self.still:
            return float(rng.uniform(0.0, 0.4))
        return float(np.clip(self.median * np.exp(self.spread * rng.standard_normal()), self.shortest, self.longest))


def draw_path(
    rng: np.random.Generator, length: float, spin: float, zoom: float, radius: float, *, bend: float, level: float
) -> Path:
    """Draw a random smooth path.

    Args:
        rng: Random generator.
        length: Length of the path of the centre in pixels.
        spin: Approximate rotation of a point at `radius` in pixels.
        zoom: Approximate radial motion of a point at `radius` in pixels.
        radius: Distance of the rim from the centre in pixels.
        bend: Curvature; 0 is straight.
        level: Preference for horizontal motion, from 0 (any direction) to 1.
    """
    angle = rng.uniform(0.0, 2.0 * np.pi)
    ahead = np.array([np.cos(angle), (1.0 - level) * np.sin(angle)])
    ahead /= np.linalg.norm(ahead)
    aside = np.array([-ahead[1], ahead[0]])
    coefficients = np.zeros((4, 3))
    coefficients[:2, 0] = ahead
    coefficients[:2, 1] = bend * (0.5 * rng.standard_normal() * aside + 0.3 * rng.standard_normal() * ahead)
    coefficients[:2, 2] = bend * 0.3 * rng.standard_normal() * aside
    line = Path(coefficients).poses(np.linspace(-1.0, 1.0, 65))[:, :2]
    coefficients[:2] *= length / np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
    coefficients[2, :2] = spin / (2.0 * radius) * rng.standard_normal(2) * (1.0, 0.3)
    coefficients[3, 0] = zoom / (2.0 * radius) * rng.standard_normal()
    return Path(coefficients)
