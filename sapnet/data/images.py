"""Image files: strict reading, whole-or-nothing writing, and the way between files and tensors.

A network trained on half a picture gives no error, only a worse result, so a file that ends early is refused here.
Neither decoder in wide use does this alone: OpenCV returns an array for a truncated JPEG, Pillow accepts a PNG whose
last chunk is missing. Files are therefore checked to their end marker first and then decoded by Pillow.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from sapnet.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""File name endings, in lower case, that count as images when a folder is listed."""

Image.init()  # Pillow knows the formats below only after it has loaded all of its plug-ins.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AT = 24
# Any JPEG marker that ends entropy-coded data or opens a segment: not a stuffed zero, a restart or a fill byte.
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_JPEG_END = 0xD9
_WRITERS = {
    ".png": {"format": "PNG", "compress_level": 3},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}


def read_image(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """RGB picture of a PNG, JPEG, BMP, TIFF or WebP file, 8 bits a channel.

    Grey images are repeated on three channels. An alpha channel that is opaque everywhere is dropped; a transparent one
    is refused, since the colours under it are whatever the program that wrote the file left there. More than 8 bits a
    channel are refused rather than cut. The orientation that a camera notes in a JPEG is applied.

    Raises:
        UserError: the file is missing, empty, no image, damaged, cut short, or of a kind named above.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _cannot_open(path, error) from error
    if not _reaches_its_end(data):
        raise _damaged(path)
    with _open(path, BytesIO(data)) as image:
        _check_kind(path, image, data)
        if image.format in ("JPEG", "MPO"):
            image = ImageOps.exif_transpose(image)
        return np.array(_to_rgb(path, image))


def read_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image file as `read_image` returns it, from the file's header alone (0.1 ms).

    Raises:
        UserError: the file is missing, empty, no image, or deeper than 8 bits. Damage further on is not seen.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, _open(path, file) as image:
            file.seek(0)
            _check_kind(path, image, file.read(_PNG_DEPTH_AT + 1))
            width, height = image.size
            sideways = image.format in ("JPEG", "MPO") and image.getexif().get(0x0112, 1) >= 5
            return (width, height) if sideways else (height, width)
    except OSError as error:
        raise _cannot_open(path, error) from error


def write_image(path: str | Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an RGB picture as PNG (lossless) or JPEG (quality 95), whole or not at all.

    The bytes go to a temporary name beside the target, which is replaced in one step; missing folders are made.

    Raises:
        UserError: the name ends neither in .png nor in .jpg, or the place cannot be written to.
        ValueError: the array is not uint8 of shape [h, w, 3].
    """
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image to write is uint8 [h, w, 3], not {image.dtype} {list(image.shape)}")
    options = _WRITERS.get(path.suffix.lower())
    if options is None:
        raise UserError(f"cannot write {path}: images are written as .png or .jpg, so give a name that ends in one.")
    encoded = BytesIO()
    Image.fromarray(image).save(encoded, **options)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(encoded.getbuffer())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): free the place or choose another folder.") from error


def to_tensor(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """float32 picture in [0, 1], channels first."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div_(255)


def to_array(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """uint8 picture, clamped to [0, 1] and rounded to the nearest level (truncation would cost 0.04 dB).

    Raises:
        UserError: a value is not finite, as after an overflow in half precision.
    """
    image = image.detach()
    if not torch.isfinite(image).all():
        raise UserError("the image holds NaN or infinite values, so it is not written: run in float32.")
    levels = image.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).cpu().numpy())


@contextmanager
def _open(path: Path, file: BytesIO | BufferedReader) -> Iterator[Image.Image]:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            yield image
    except Image.UnidentifiedImageError as error:
        file.seek(0)
        if not file.read(1):
            raise UserError(f"{path} is an empty file: copy or download it again.") from error
        raise UserError(f"{path} is no image that can be read (PNG, JPEG, BMP, TIFF, WebP): remove it.") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large an image: cut it into tiles first.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise _damaged(path) from error


def _check_kind(path: Path, image: Image.Image, head: bytes) -> None:
    # Pillow opens a 16-bit RGB PNG as 8 bits without a word, so its header is asked.
    deep = image.mode.startswith(("I", "F")) or (image.format == "PNG" and head[_PNG_DEPTH_AT] > 8)
    if deep:
        raise UserError(f"{path} has more than 8 bits a channel: convert it to 8 bits first.")
    if image.mode not in ("RGB", "L", "1", "P", "LA", "PA", "RGBA"):
        raise UserError(f"{path} is a {image.mode} image: convert it to RGB first.")


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise UserError(f"{path} is partly transparent: flatten it on a background first.")
    return image.convert("RGB")


def _reaches_its_end(data: bytes) -> bool:
    if data.startswith(_PNG_SIGNATURE):
        return _png_reaches_its_end(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_reaches_its_end(data)
    return True


def _png_reaches_its_end(data: bytes) -> bool:
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data) or zlib.crc32(data[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return False
        if kind == b"IEND":
            return True
        at = end + 4
    return False


def _jpeg_reaches_its_end(data: bytes) -> bool:
    # Segments are skipped by their length: a thumbnail inside one has an end marker of its own.
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        if marker[1][0] == _JPEG_END:
            return True
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged or ends early: copy or download it again.")


def _cannot_open(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot read {path} ({error.strerror or error}): check the path and its permissions.")
