"""Opening of image files: complete content, bits per channel and orientation.

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

from PIL import Image

from sapnet.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""File name endings of images in lower case."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
#: EXIF tag of the orientation.
ORIENTATION = 0x0112
#: Bytes of a file that `bits_per_channel` needs.
HEAD_BYTES = 25

Image.init()  # loads all plug-ins, without which Pillow does not know these formats
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AT = 24
# Chunks in which a PNG file may hold an orientation: EXIF, or EXIF or XMP as text.
_PNG_METADATA = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
# JPEG markers that end entropy-coded data or start a segment: no stuffed zeros, restart markers or fill bytes.
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_JPEG_END = 0xD9
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS = 256, 257, 258


def read_complete(path: Path) -> bytes:
    """Read a file.

    Raises:
        UserError: The file cannot be read, or is a truncated PNG or JPEG.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error
    if not _is_complete(data):
        raise damaged(path)
    return data


@contextmanager
def open_image(path: Path, file: BytesIO | BufferedReader, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Open an image with Pillow; what goes wrong in the block is reported with the name of the file.

    Args:
        path: Path of the file, for messages.
        file: The open file.
        formats: Names of the formats that are accepted.

    Raises:
        UserError: The file is empty, damaged, not an image, or too large for Pillow.
    """
    try:
        with Image.open(file, formats=formats) as image:
            yield image
    except Image.UnidentifiedImageError as error:
        file.seek(0)
        if not file.read(1):
            raise UserError(f"{path} is an empty file: copy or download it again.") from error
        raise UserError(f"{path} is not a readable image (PNG, JPEG, BMP, TIFF, WebP): remove it.") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large: cut it into tiles first.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise damaged(path) from error


def bits_per_channel(image: Image.Image, head: bytes) -> int:
    """Return the bits per channel in the file, which Pillow may reduce to 8 when it decodes them.

    Args:
        image: The opened image.
        head: The first `HEAD_BYTES` of the file.
    """
    if image.format == "PNG":
        return head[_PNG_DEPTH_AT]
    bits = max(image.tag_v2.get(_TIFF_BITS, (1,))) if image.format == "TIFF" else 8  # pyright: ignore[reportAttributeAccessIssue]
    return max(bits, 32) if image.mode in ("I", "F") else bits


def upright_size(image: Image.Image, file: BufferedReader) -> tuple[int, int]:
    """Return the height and width of an image after its orientation is applied, from the header of the file."""
    width, height = image.size
    if image.format == "TIFF":  # whose size Pillow turns or not, depending on its version
        width, height = (image.tag_v2[tag] for tag in (_TIFF_WIDTH, _TIFF_HEIGHT))  # pyright: ignore[reportAttributeAccessIssue]
    # Pillow would decode a PNG without EXIF to look for it at the end of the file.
    oriented = image.format != "PNG" or _png_has_metadata(file)
    sideways = oriented and image.getexif().get(ORIENTATION, 1) >= 5
    return (width, height) if sideways else (height, width)


def damaged(path: Path) -> UserError:
    """Return the error for a file that cannot be decoded."""
    return UserError(f"{path} is damaged or truncated: copy or download it again.")


def cannot_read(path: Path, error: OSError) -> UserError:
    """Return the error for a file that the system does not open."""
    return UserError(f"cannot read {path} ({error.strerror or error}): check the path and its permissions.")


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


def _png_has_metadata(file: BufferedReader) -> bool:
    at = len(_PNG_SIGNATURE)
    while True:
        file.seek(at)
        header = file.read(8)
        if len(header) < 8 or header[4:] == b"IEND":
            return False
        if header[4:] in _PNG_METADATA:
            return True
        at += 12 + int.from_bytes(header[:4], "big")


def _jpeg_is_complete(data: bytes) -> bool:
    # Segments are skipped by their length, because an embedded thumbnail has an end marker too.
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        if marker[1][0] == _JPEG_END:
            return True
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False
