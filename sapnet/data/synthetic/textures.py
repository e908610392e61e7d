"""Opaque textures with properties of photographs: strong edges, smooth regions, and a 1/f spectrum of details."""

import string

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

Picture = UInt8[np.ndarray, "h w 3"]
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)
_LETTERS = np.array(list(string.ascii_letters + string.digits + " "))


def palette(rng: np.random.Generator, colours: int) -> Float[np.ndarray, "colours 3"]:
    """Draw the colours of a surface, 0 to 255, with a common tint and mostly low saturation."""
    tint = rng.random(3)
    value = rng.uniform(0.04, 1.0, (colours, 1))
    chroma = rng.beta(1.1, 2.8, (colours, 1))
    hue = np.clip(0.6 * tint + 0.4 * rng.random((colours, 3)) ** 1.3, 0.0, 1.0)
    hue /= hue.max(axis=1, keepdims=True)
    return 255.0 * value * (1.0 - chroma + chroma * hue)


def clouds(rng: np.random.Generator, height: int, width: int, coarsest: int = 64) -> Float32[np.ndarray, "h w"]:
    """Draw smooth noise of about unit deviation with a 1/f amplitude at scales from `coarsest` down to 2 pixels."""
    field = np.zeros((height, width), np.float32)
    step, power = coarsest, 0.0
    while step >= 2:
        grid = rng.standard_normal((height // step + 3, width // step + 3), dtype=np.float32)
        size = (grid.shape[1] * step, grid.shape[0] * step)
        field += step * cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)[step:, step:][:height, :width]
        power += 0.4 * step**2
        step //= 2
    return field / np.float32(np.sqrt(power))


def gradient(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Draw a smooth gradient between two colours, as of sky, walls or water."""
    first, second = palette(rng, 2)
    mix = 0.5 + 0.2 * clouds(rng, height, width, 128)
    mix += rng.uniform(-0.5, 0.5) * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    mix = np.clip(mix, 0.0, 1.0)[..., None]
    return (first.astype(np.float32) * (1 - mix) + second.astype(np.float32) * mix).astype(np.uint8)


def outline(rng: np.random.Generator, kind: str) -> Float[np.ndarray, "points 2"]:
    """Draw a closed outline around the origin of about unit radius; kind: "ellipse", "box", "polygon" or "blob"."""
    if kind == "box":
        side = rng.uniform(0.35, 1.0)
        points = np.array([[-1, -side], [1, -side], [1, side], [-1, side]])
        turn = rng.normal(0.0, 0.15)
    elif kind == "polygon":
        count = int(rng.integers(3, 8))
        angles = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count
        points = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.5, 1.1, (count, 1))
        turn = rng.uniform(0, 2 * np.pi)
    else:
        angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        radius = np.ones(32)
        if kind == "blob":
            for wave in range(2, 6):
                radius += rng.normal(0.0, 0.35) / wave * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
        points = np.stack([np.cos(angles), rng.uniform(0.45, 1.0) * np.sin(angles)], 1) * radius[:, None]
        turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ rotation.T


def leaves(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Draw dead leaves: overlapping shapes on a smooth background, with a density of radii of r^-3."""
    picture = gradient(rng, height, width)
    smallest, largest = rng.uniform(3.0, 8.0), rng.uniform(24.0, 56.0)
    area = 2.0 * np.pi * np.log(largest / smallest) / (smallest**-2 - largest**-2)
    count = int(rng.uniform(0.3, 1.5) * height * width / area) + 1
    radii = (smallest**-2 + rng.random(count) * (largest**-2 - smallest**-2)) ** -0.5
    centres = rng.random((count, 2)) * (width, height)
    models = [outline(rng, kind) for kind in ("ellipse", "ellipse", "box", "polygon", "polygon", "blob")]
    chosen = rng.integers(len(models), size=count)
    colours = palette(rng, 12)[rng.integers(12, size=count)]
    for radius, centre, model, colour in zip(radii, centres, chosen, colours, strict=True):
        points = np.rint((models[model] * radius + centre) * 16).astype(np.int32)
        cv2.fillPoly(picture, [points], colour.tolist(), cv2.LINE_AA, 4)
    return picture


def facade(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Draw rows of windows, tiles or bricks in perspective."""
    wall, frame, *panes = palette(rng, 6)
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = wall
    pitch = rng.uniform(12.0, 44.0) * np.array([1.0, rng.uniform(0.5, 1.6)])
    share = rng.uniform(0.45, 0.9, 2)
    shift, framed = rng.uniform(0.0, 0.5), rng.random() < 0.5
    for row in range(int(height / pitch[1]) + 2):
        for column in range(-1, int(width / pitch[0]) + 2):
            low = (np.array([column + shift * (row % 2), row - 0.5])) * pitch
            box = np.rint(np.concatenate([low, low + pitch * share])).astype(int).tolist()
            cv2.rectangle(picture, box[:2], box[2:], panes[rng.integers(4)].tolist(), cv2.FILLED)
            if framed:
                cv2.rectangle(picture, box[:2], box[2:], frame.tolist(), 1)
    return _perspective(rng, picture)


def stripes(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Draw bands of different widths, as of fences, steps, shutters or zebra crossings."""
    colours = palette(rng, 4).astype(np.float32)
    angle = rng.choice([0.0, 0.5 * np.pi]) + rng.normal(0.0, 0.25)
    reach = int(np.hypot(height, width)) + 4
    narrow = rng.uniform(4.0, 12.0)
    edges = np.cumsum(narrow * rng.uniform(1.0, rng.uniform(1.05, 4.0), int(reach / narrow) + 2))
    band = np.searchsorted(edges, np.arange(4 * reach) / 4.0)
    order = rng.integers(4, size=band.max() + 1) if rng.random() < 0.5 else np.arange(band.max() + 1) % 2
    profile = cv2.blur(colours[order[band]].reshape(-1, 1, 3), (1, 4))
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    along = np.float32(np.cos(angle)) * (xs - width / 2) + np.float32(np.sin(angle)) * (ys - height / 2) + reach / 2
    bands = cv2.remap(profile, np.zeros_like(along), 4 * along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return bands.astype(np.uint8)


def lettering(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Draw lines of text on a smooth background, as of signs, posters or shop windows."""
    picture = gradient(rng, height, width)
    dark = picture.mean() > 110
    y = 0
    while y < height:
        scale = rng.uniform(0.5, 1.8)
        y += int(34 * scale)
        text = "".join(rng.choice(_LETTERS, int(width / (14 * scale)) + 2))
        colour = (palette(rng, 1)[0] * 0.35 if dark else 255 - 0.45 * palette(rng, 1)[0]).tolist()
        place = (int(rng.integers(-20, 10)), y)
        font = _FONTS[rng.integers(len(_FONTS))]
        cv2.putText(picture, text, place, font, scale, colour, max(1, round(2 * scale)), cv2.LINE_AA)
    return _perspective(rng, picture)


def _perspective(rng: np.random.Generator, picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    inner = corners + (rng.uniform(0.0, 0.18, (4, 2)) * (width, height) * np.sign((width / 2, height / 2) - corners))
    plane = cv2.getPerspectiveTransform(inner.astype(np.float32), corners)
    return cv2.warpPerspective(picture, plane, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _finish(rng: np.random.Generator, picture: Picture) -> Float32[np.ndarray, "h w 3"]:
    """Apply uneven light, fine grain and a slight blur."""
    height, width = picture.shape[:2]
    light = 1.0 + rng.uniform(0.02, 0.25) * clouds(rng, height, width, 128)
    grain = rng.uniform(0.0, 3.0) * clouds(rng, height, width, 8)
    shaded = picture * light[..., None] + grain[..., None]
    return np.clip(cv2.GaussianBlur(shaded, (3, 3), 0.5), 0.0, 255.0)


_KINDS = (leaves, facade, stripes, lettering, gradient)


def surface(
    rng: np.random.Generator, height: int, width: int, weights: tuple[float, ...]
) -> Float32[np.ndarray, "h w 3"]:
    """Draw the texture of an object, 0 to 255.

    Args:
        rng: Random generator.
        height: Height in pixels.
        width: Width in pixels.
        weights: Probabilities of leaves, facade, stripes, lettering and gradient.
    """
    draw = _KINDS[rng.choice(len(_KINDS), p=weights)]
    return _finish(rng, draw(rng, height, width))


def backdrop(rng: np.random.Generator, height: int, width: int) -> Float32[np.ndarray, "h w 3"]:
    """Draw a background, 0 to 255: one or several textures separated by a skyline, with poles, wires and lamps."""
    weights = (0.42, 0.18, 0.1, 0.1, 0.2)
    picture = _KINDS[rng.choice(len(_KINDS), p=weights)](rng, height, width)
    for _ in range(rng.integers(0, 3)):
        other = _KINDS[rng.choice(len(_KINDS), p=weights)](rng, height, width)
        mask = np.zeros((height, width), np.uint8)
        knots = np.sort(rng.random(int(rng.integers(2, 6)))) * width
        line = np.stack([knots, height * (rng.uniform(0.2, 0.8) + rng.normal(0.0, 0.12, len(knots)))], 1)
        line = np.concatenate([[[0, height]], [[0, line[0, 1]]], line, [[width, line[-1, 1]]], [[width, height]]])
        cv2.fillPoly(mask, [np.rint(line * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        picture = cv2.copyTo(other, (mask > 127).astype(np.uint8), picture)
    _draw_thin_objects(rng, picture)
    return _finish(rng, picture)


def _draw_thin_objects(rng: np.random.Generator, picture: Picture) -> None:
    height, width = picture.shape[:2]
    for colour in palette(rng, int(rng.integers(0, 7))):
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * (width, height)
        if rng.random() < 0.5:
            ends[1, 0] = ends[0, 0] + rng.normal(0.0, 4.0)
        thick = int(rng.integers(1, 5))
        start, end = np.rint(ends * 16).astype(int).tolist()
        cv2.line(picture, start, end, colour.tolist(), thick, cv2.LINE_AA, 4)
    if rng.random() < 0.3:
        for centre in rng.random((int(rng.integers(1, 8)), 2)) * (width, height):
            radius = int(16 * rng.uniform(1.0, 3.5))
            cv2.circle(picture, np.rint(centre * 16).astype(int).tolist(), radius, (255, 255, 250), -1, cv2.LINE_AA, 4)
