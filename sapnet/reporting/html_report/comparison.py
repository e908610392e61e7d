"""Comparisons of the pictures of a test image, embedded in the page."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from sapnet.errors import UserError
from sapnet.evaluation.pictures import Picture
from sapnet.reporting.html_report.elements import number, remark, text
from sapnet.reporting.html_report.restored_pictures import RestoredPictures, chosen_images, restored_pictures
from sapnet.reporting.html_report.run_results import RunResults

#: Pictures whose PNG file is larger, in bytes, are stored as WebP with this quality.
_LARGEST_PNG, _WEBP_QUALITY = 200_000, 90
#: Opaque red of 65%, as in `sapnet.evaluation.pictures.with_points`.
_POINT = (255, 0, 0, 166)
#: Pictures narrower than this are enlarged with visible pixels.
_SMALL = 300


def comparisons(run: RunResults, count: int, room: int) -> str:
    """Restore chosen images and return their comparisons, or a sentence that says why there are none.

    Args:
        run: The run.
        count: Number of images.
        room: Largest number of bytes of all comparisons. Images beyond are left out, which a sentence says.
    """
    chosen = chosen_images(run.lines, count)
    if not chosen:
        return remark("There are no pictures: no test image has a finite PSNR.")
    metrics = {line["name"]: line for line in run.lines}
    shown, left_out = {}, []
    try:
        for restored in restored_pictures(run, list(chosen)):
            figure = comparison(restored, f"{restored.name} ({chosen[restored.name]})", metrics[restored.name])
            if len(figure.encode()) > room:
                left_out.append(restored.name)
            else:
                room -= len(figure.encode())
                shown[restored.name] = figure
    except UserError as error:
        return remark(f"There are no pictures, because the images cannot be restored anew: {error}")
    missing = [name for name in chosen if name not in shown and name not in left_out]
    sentences = []
    if left_out:
        sentences.append(remark(f"Left out, because the file would become too large: {', '.join(left_out)}."))
    if missing:
        sentences.append(remark(f"The data of the run's config do not hold {', '.join(missing)}."))
    order = sorted(shown, key=lambda name: metrics[name]["stage_psnr"][-1])
    return "\n".join([*sentences, *(shown[name] for name in order)])


def comparison(restored: RestoredPictures, title: str, line: Mapping[str, Any]) -> str:
    """Return the pictures of a test image, and the controls that compare two of them."""
    psnr = {"blurred": line["input_psnr"]} | {f"stage {k}": value for k, value in enumerate(line["stage_psnr"], 1)}
    figures = [
        _figure(key, data_uri(pixels), pixels, key + (f", {number(psnr[key], '.2f')} dB" if key in psnr else ""))
        for key, pixels in restored.pictures.items()
    ]
    figures += [
        _figure(f"points {key}", points_uri(mask), mask, f"points that {key} sampled")
        for key, mask in restored.points.items()
    ]
    small = " small" if restored.pictures["blurred"].shape[1] < _SMALL else ""
    return (
        f'<figure class="comparison{small}"><h3>{text(title)}</h3>\n{_controls(restored, title)}\n'
        f'<details open><summary>Pictures one by one</summary><div class="pictures">\n'
        + "\n".join(figures)
        + "\n</div></details></figure>"
    )


def _figure(key: str, uri: str, pixels: np.ndarray, caption: str) -> str:
    height, width = pixels.shape[:2]
    return (
        f'<figure><img data-key="{text(key)}" alt="{text(caption)}" width="{width}" height="{height}" src="{uri}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def _controls(restored: RestoredPictures, title: str) -> str:
    keys = list(restored.pictures)
    last_stage = keys[-2]
    parts = [
        f'<label>Left <select class="left">{_options(keys, "blurred")}</select></label>',
        f'<label>Right <select class="right">{_options(keys, last_stage)}</select></label>',
    ]
    if restored.points:
        parts.append('<label><input type="checkbox" class="toggle"> Sampled points of</label>')
        options = "".join(f'<option value="points {text(key)}">{text(key)}</option>' for key in restored.points)
        parts.append(f'<select class="stage" aria-label="Stage of the points">{options}</select>')
    label = text(f"Border between the left and the right picture of {title}")
    parts.append(f'<input type="range" class="range" min="0" max="100" value="50" aria-label="{label}">')
    return (
        f'<div class="interactive" hidden><div class="controls">{"".join(parts)}</div><div class="frame">'
        '<img class="after" alt=""><img class="before" alt=""><img class="points" alt="" hidden>'
        '<div class="border"></div></div></div>'
    )


def _options(keys: Sequence[str], chosen: str) -> str:
    return "".join(f"<option{' selected' if key == chosen else ''}>{text(key)}</option>" for key in keys)


def data_uri(pixels: Picture) -> str:
    """Return a picture as a data URI: PNG, or WebP of good quality if the PNG file would be large."""
    image = Image.fromarray(pixels)
    png = _encoded(image, "PNG", optimize=True)
    if len(png) <= _LARGEST_PNG:
        return _uri("png", png)
    return _uri("webp", _encoded(image, "WEBP", quality=_WEBP_QUALITY))


def points_uri(mask: Bool[np.ndarray, "h w"]) -> str:
    """Return sampled points as a data URI of a PNG file, translucent red on nothing."""
    image = Image.fromarray(mask.astype(np.uint8), mode=None).convert("P")
    image.putpalette([0, 0, 0, *_POINT[:3]])
    return _uri("png", _encoded(image, "PNG", optimize=True, transparency=bytes([0, _POINT[3]])))


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
