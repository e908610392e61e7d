"""Image files: strict reading, atomic writing, and conversion to and from tensors.

A network trained on truncated images raises no error but gives worse results, so truncated files are rejected. The
common decoders do not detect all of them: OpenCV returns an array for a truncated JPEG, and Pillow accepts a PNG
without its last chunk. Files are therefore scanned for their end marker before Pillow decodes them.
"""

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
from sapnet.files import write_atomically

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""File name endings of images in lower case."""

Image.init()  # loads all plug-ins, without which Pillow does not know these formats
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AT = 24
# JPEG markers that end entropy-coded data or start a segment: no stuffed zeros, restart markers or fill bytes.
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_JPEG_END = 0xD9
_WRITERS = {
    ".png": {"format": "PNG", "compress_level": 3},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}


def read_image(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read a PNG, JPEG, BMP, TIFF or WebP file as an RGB image with 8 bits per channel.

    Grey images are repeated on three channels. An opaque alpha channel is dropped; transparency is rejected, because
    the colours of transparent pixels are undefined. More than 8 bits per channel are rejected rather than truncated.
    The orientation tag of a JPEG is applied.

    Raises:
        UserError: The file is missing, empty, damaged, truncated, not an image, or of a kind that is rejected.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _cannot_open(path, error) from error
    if not _is_complete(data):
        raise _damaged(path)
    with _open(path, BytesIO(data)) as image:
        _check_kind(path, image, data)
        if image.format in ("JPEG", "MPO"):
            image = ImageOps.exif_transpose(image)
        return np.array(_to_rgb(path, image))


def read_size(path: str | Path) -> tuple[int, int]:
    """Read the height and width of an image as returned by `read_image` from the header of the file (0.1 ms).

    Raises:
        UserError: The file is missing, empty, not an image, or has more than 8 bits per channel. Damage after the
            header is not detected.
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
    """Write an RGB image as PNG (lossless) or JPEG (quality 95), atomically; missing folders are created.

    Raises:
        UserError: The file name ends neither in .png nor in .jpg, or the file cannot be written.
        ValueError: The array is not uint8 of shape [h, w, 3].
    """
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be uint8 [h, w, 3], not {image.dtype} {list(image.shape)}")
    options = _WRITERS.get(path.suffix.lower())
    if options is None:
        raise UserError(f"cannot write {path}: choose a file name that ends in .png or .jpg.")
    encoded = BytesIO()
    Image.fromarray(image).save(encoded, **options)
    try:
        write_atomically(path, encoded.getbuffer(), durable=False)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): free space or choose another folder.") from error


def to_tensor(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """Convert an 8-bit image to float32 in [0, 1], channels first."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div_(255)


def to_array(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Convert an image in [0, 1] to 8 bits; values are clamped and rounded (truncation would cost 0.04 dB).

    Raises:
        UserError: A value is not finite, for example after an overflow in half precision.
    """
    image = image.detach()
    if not torch.isfinite(image).all():
        raise UserError("the image contains NaN or infinite values and is not written: run in float32.")
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
        raise UserError(f"{path} is not a readable image (PNG, JPEG, BMP, TIFF, WebP): remove it.") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large: cut it into tiles first.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise _damaged(path) from error


def _check_kind(path: Path, image: Image.Image, head: bytes) -> None:
    # Pillow silently opens a 16-bit RGB PNG as 8 bits, so the header is read here.
    deep = image.mode.startswith(("I", "F")) or (image.format == "PNG" and head[_PNG_DEPTH_AT] > 8)
    if deep:
        raise UserError(f"{path} has more than 8 bits per channel: convert it to 8 bits first.")
    if image.mode not in ("RGB", "L", "1", "P", "LA", "PA", "RGBA"):
        raise UserError(f"{path} is a {image.mode} image: convert it to RGB first.")


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise UserError(f"{path} is partly transparent: flatten it on a background first.")
    return image.convert("RGB")


def _is_complete(data: bytes) -> bool:
    if data.startswith(_PNG_SIGNATURE):
        return _png_is_complete(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_is_complete(data)
    return True


def _png_is_complete(data: bytes) -> bool:
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


def _jpeg_is_complete(data: bytes) -> bool:
    # Segments are skipped by their length, because an embedded thumbnail has an end marker too.
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        if marker[1][0] == _JPEG_END:
            return True
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged or truncated: copy or download it again.")


def _cannot_open(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot read {path} ({error.strerror or error}): check the path and its permissions.")
