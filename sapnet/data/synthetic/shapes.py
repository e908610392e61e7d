"""Objects: shapes with smooth edges that are cut out of a texture."""

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from sapnet.data.synthetic.textures import outline, surface

SHAPES = ("ellipse", "box", "polygon", "blob", "figure", "ring", "letter", "board")
_WEIGHTS = (0.3, 0.15, 0.2, 0.1, 0.25)
_BOARD = (0.05, 0.15, 0.1, 0.65, 0.05)


def draw_alpha(rng: np.random.Generator, shape: str, radius: float) -> Float32[np.ndarray, "side side"]:
    """Draw the opacity (0 to 1) of an object of about `radius` pixels.

    The border of the image is transparent, so that it can be moved by fractions of a pixel.
    """
    return cv2.GaussianBlur(_mask(rng, shape, radius), (3, 3), 0.5).astype(np.float32) / 255.0


def cut_out(
    rng: np.random.Generator, shape: str, alpha: Float32[np.ndarray, "side side"]
) -> Float32[np.ndarray, "side side 4"]:
    """Return a textured object: RGB from 0 to 255 multiplied by `alpha`, and `alpha`."""
    side = len(alpha)
    colours = surface(rng, side, side, _BOARD if shape == "board" else _WEIGHTS)
    ys, xs = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    light = np.float32(rng.uniform(0.0, 0.4)) * (np.float32(rng.uniform(-1, 1)) * xs - ys)
    colours = np.clip(colours * (1.0 + light)[..., None], 0.0, 255.0)
    return np.concatenate([colours * alpha[..., None], alpha[..., None]], axis=2)


def _mask(rng: np.random.Generator, shape: str, radius: float) -> UInt8[np.ndarray, "side side"]:
    half = int(np.ceil(1.45 * radius)) + 4
    mask = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    if shape == "figure":
        head, width = 0.24 * radius, rng.uniform(0.25, 0.5)
        _fill(mask, outline(rng, "ellipse") * head + (half, half - radius))
        body = np.array([[-width, -0.7], [width, -0.7], [0.8 * width, 0.2], [-0.8 * width, 0.2]])
        _fill(mask, body * radius + half)
        for side in (-1, 1):
            foot = rng.uniform(0.0, 0.6) * side
            hip = 0.1 * side
            leg = np.array([[hip - 0.15, 0.1], [hip + 0.15, 0.1], [foot + 0.13, 1.25], [foot - 0.1, 1.25]])
            _fill(mask, leg * radius + half)
    elif shape == "ring":
        thick = max(2, round(radius * rng.uniform(0.15, 0.5)))
        points = np.rint((outline(rng, "ellipse") * radius + half) * 16).astype(np.int32)
        cv2.polylines(mask, [points], True, 255, thick, cv2.LINE_AA, 4)
    elif shape == "letter":
        letter = "ABEFHKMNRSTXZ2345678&"[rng.integers(21)]
        scale, thick = radius / 12.0, max(2, round(radius / 4))
        (width, height), _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
        place = (half - width // 2, half + height // 2)
        cv2.putText(mask, letter, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)
    else:
        _fill(mask, outline(rng, "box" if shape == "board" else shape) * radius + half)
    mask[:2], mask[-2:], mask[:, :2], mask[:, -2:] = 0, 0, 0, 0
    return mask


def _fill(mask: UInt8[np.ndarray, "h w"], points: np.ndarray) -> None:
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
