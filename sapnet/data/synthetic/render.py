"""Rendering of an exposure: sub-frames at most a pixel apart, their mean, and the true extent of the blur."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from sapnet.data.synthetic.motion import MIDDLE
from sapnet.data.synthetic.scenes import Layer, Scene

_MIN_SUBFRAMES = 9


class Exposure(NamedTuple):
    """A rendered scene.

    Attributes:
        blurred: Mean of the sub-frames.
        sharp: Middle sub-frame.
        extent: Extent of the blur in pixels.
    """

    blurred: UInt8[np.ndarray, "h w 3"]
    sharp: UInt8[np.ndarray, "h w 3"]
    extent: Float32[np.ndarray, "h w"]


def largest_step(scene: Scene, times: Float[np.ndarray, "n"]) -> float:
    """Return the largest motion in pixels of any point in the frame between neighbouring times."""
    height, width = scene.size
    longest = 0.0
    for number, layer in enumerate(scene.layers):
        moves = layer.placements(scene.camera, scene.size, times)
        # The motion is an affine function of the position, so it is largest at a corner of the visible region.
        if number == 0:
            points = np.linalg.inv(moves[:-1]) @ _corners(height, width)
        else:
            points = _corners(*layer.image.shape[:2])
        steps = ((moves[1:] - moves[:-1]) @ points)[:, :2]
        longest = max(longest, float(np.hypot(steps[:, 0], steps[:, 1]).max()))
    return longest


def exposure_times(scene: Scene) -> Float[np.ndarray, "n"]:
    """Return the smallest odd number of evenly spaced times from -1 to 1 with steps of at most a pixel."""
    count = _MIN_SUBFRAMES
    while True:
        times = np.linspace(-1.0, 1.0, count)
        times[count // 2] = 0.0
        step = largest_step(scene, times)
        if step <= 1.0:
            return times
        count = max(count + 2, int(step * (count - 1)) // 2 * 2 + 1)


def expose(scene: Scene, gamma: float | None) -> Exposure:
    """Render a scene.

    Every sub-frame is rounded to 8 bits, like the frames of a video.

    Args:
        scene: The scene.
        gamma: Exponent of linear light, stored = linear^(1/gamma), in which the mean is taken. None takes the mean of
            the stored values.
    """
    times = exposure_times(scene)
    moves = [layer.placements(scene.camera, scene.size, times) for layer in scene.layers]
    power = 1.0 if gamma is None else gamma
    light = (np.linspace(0.0, 1.0, 256) ** power).astype(np.float32)
    total = np.zeros((*scene.size, 3), np.float32)
    sharp = np.zeros((*scene.size, 3), np.uint8)
    for number in range(len(times)):
        frame = subframe(scene, [move[number] for move in moves])
        total += cv2.LUT(frame, light)
        if number == len(times) // 2:
            sharp = frame
    blurred = np.rint((total / len(times)) ** (1.0 / power) * 255.0).clip(0, 255).astype(np.uint8)
    return Exposure(blurred, sharp, _extent(scene, moves))


def extent_map(scene: Scene) -> Float32[np.ndarray, "h w"]:
    """Return the extent of the blur in pixels like `expose`, without rendering the images."""
    times = exposure_times(scene)
    return _extent(scene, [layer.placements(scene.camera, scene.size, times) for layer in scene.layers])


def subframe(scene: Scene, moves: list[Float[np.ndarray, "3 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Render the scene at one time; `moves` contains a matrix of `Layer.placements` per layer."""
    height, width = scene.size
    ground = scene.layers[0].image
    frame = cv2.warpAffine(
        ground, moves[0][:2], (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    for layer, move in zip(scene.layers[1:], moves[1:], strict=True):
        box = _box(layer, move, height, width)
        if box is not None:
            patch = _patch(layer, move, box)
            region = frame[box]
            region *= cv2.cvtColor(1.0 - patch[..., 3], cv2.COLOR_GRAY2RGB)
            region += cv2.cvtColor(patch, cv2.COLOR_RGBA2RGB)
    return cv2.convertScaleAbs(frame)


def _box(layer: Layer, move: Float[np.ndarray, "3 3"], height: int, width: int) -> tuple[slice, slice] | None:
    corners = (move @ _corners(*layer.image.shape[:2]))[:2]
    x0, y0 = np.maximum(np.floor(corners.min(axis=1)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(axis=1)).astype(int) + 1, (width, height))
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def _patch(layer: Layer, move: Float[np.ndarray, "3 3"], box: tuple[slice, slice]) -> Float32[np.ndarray, "h w 4"]:
    ys, xs = box
    shifted = move[:2].copy()
    shifted[:, 2] -= xs.start, ys.start
    return cv2.warpAffine(layer.image, shifted, (xs.stop - xs.start, ys.stop - ys.start), flags=cv2.INTER_LINEAR)


def _extent(scene: Scene, moves: list[Float[np.ndarray, "n 3 3"]]) -> Float32[np.ndarray, "h w"]:
    """Return the length of the path of the visible surface (alpha of at least one half) at each pixel."""
    height, width = scene.size
    top = np.zeros((height, width), np.uint8)
    for number, layer in enumerate(scene.layers[1:], start=1):
        move = layer.placements(scene.camera, scene.size, MIDDLE)[0]
        box = _box(layer, move, height, width)
        if box is not None:
            top[box][_patch(layer, move, box)[..., 3] >= 0.5] = number
    extent = np.zeros((height, width), np.float32)
    for number, move in enumerate(moves):
        ys, xs = np.nonzero(top == number)
        back = np.linalg.inv(move[len(move) // 2])
        places, length = np.stack([xs, ys]).astype(np.float32), np.zeros(len(xs), np.float32)
        for step in ((move[1:] - move[:-1]) @ back)[:, :2].astype(np.float32):
            dx, dy = step[:, :2] @ places + step[:, 2:]
            length += np.sqrt(dx * dx + dy * dy)
        extent[ys, xs] = length
    return extent


def _corners(height: int, width: int) -> Float[np.ndarray, "3 4"]:
    return np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]], float)
