"""EXIF data and colour profiles of photos, and encoders of the files that Pillow cannot write with them.

Pillow cannot hold colour images with 16 bits per channel, and writes compressed TIFF files without EXIF data. OpenCV
writes 16-bit PNG files, but in its older versions without metadata.
"""

import struct
import zlib

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sapnet.data.image_files import ORIENTATION

_EXIF_IFD, _GPS_IFD, _INTEROPERABILITY_IFD = 0x8769, 0x8825, 0xA005
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
#: Tags of the main directory that describe the photo: text, resolution, software, date, author, rating, copyright. In
#: a TIFF file the directory also describes how the pixels are stored, which is not carried over.
_CARRIED = frozenset({*range(270, 273), 282, 283, 296, 305, 306, 315, 316, 18246, 18249, *range(40091, 40096), 33432})
_PREFIX = b"Exif\0\0"
_PNG_HEADER_END = 33


def carried_exif(image: Image.Image, height: int, width: int) -> bytes:
    """Return the EXIF data of an image for a file whose pixels are upright.

    The orientation is 1, and the thumbnail, which shows the blurred photo, is left out.

    Args:
        image: The opened image.
        height: Rows of the upright image.
        width: Columns of the upright image.

    Returns:
        EXIF data with its prefix; empty if there are none, or if they are damaged.
    """
    try:
        source = image.getexif()
        exif = Image.Exif()
        exif.update({tag: value for tag, value in source.items() if tag in _CARRIED})
        for pointer in (_EXIF_IFD, _GPS_IFD):
            if directory := dict(source.get_ifd(pointer)):
                exif[pointer] = directory
        if _EXIF_IFD in exif:
            _complete_directory(exif[_EXIF_IFD], source, height, width)
        if not len(exif):
            return b""
        exif[ORIENTATION] = 1
        return exif.tobytes()
    except Exception:  # Pillow has no error class for damaged EXIF data
        return b""


def _complete_directory(directory: dict, source: Image.Exif, height: int, width: int) -> None:
    # Its position in the file would be wrong in another file.
    if directory.pop(_INTEROPERABILITY_IFD, None) is not None:
        directory[_INTEROPERABILITY_IFD] = dict(source.get_ifd(_INTEROPERABILITY_IFD))
    for tag, pixels in ((_PIXEL_WIDTH, width), (_PIXEL_HEIGHT, height)):
        if tag in directory:
            directory[tag] = pixels


def encode_png16(levels: UInt16[np.ndarray, "h w c"], exif: bytes, profile: bytes | None) -> bytes:
    """Encode a 16-bit PNG file.

    Args:
        levels: Grey, RGB or RGBA.
        exif: EXIF data with its prefix, or nothing.
        profile: ICC profile.
    """
    order = {1: (0,), 3: (2, 1, 0), 4: (2, 1, 0, 3)}[levels.shape[2]]
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(levels[..., order]))
    chunks = b""
    if profile:
        chunks += _png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    if exif:
        chunks += _png_chunk(b"eXIf", exif.removeprefix(_PREFIX))
    data = encoded.tobytes()
    return data[:_PNG_HEADER_END] + chunks + data[_PNG_HEADER_END:]


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encode_tiff(
    levels: UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"], exif: bytes, profile: bytes | None
) -> bytes:
    """Encode a TIFF file with 8 or 16 bits per channel, compressed without loss.

    Args:
        levels: Grey, grey with alpha, RGB or RGBA.
        exif: EXIF data with its prefix, or nothing.
        profile: ICC profile.
    """
    height, width, channels = levels.shape
    # The horizontal predictor: differences of neighbours are smaller to compress.
    differences = np.diff(levels, axis=1, prepend=np.zeros((height, 1, channels), levels.dtype))
    strip = zlib.compress(differences.astype(levels.dtype.newbyteorder("<")).tobytes(), 6)
    tags = ImageFileDirectory_v2()
    deflate, grey, rgb, horizontal, straight_alpha = 8, 1, 2, 2, 2
    bits = (8 * levels.itemsize,) * channels
    description = {256: width, 257: height, 258: bits, 259: deflate, 262: grey if channels < 3 else rgb}
    # Pillow adds the length of the directory to the position of the strip.
    storage = {273: 0, 277: channels, 278: height, 279: len(strip), 284: 1, 317: horizontal, 339: (1,) * channels}
    for tag, value in (description | storage).items():
        tags[tag] = value
    if channels in (2, 4):
        tags[338] = straight_alpha
    for tag, value in _exif_tags(exif).items():
        tags[tag] = value
    if profile:
        tags[34675] = profile
    header = b"II*\0" + struct.pack("<I", 8)
    return header + tags.tobytes(len(header)) + strip


def _exif_tags(exif: bytes) -> dict:
    tags = Image.Exif()
    tags.load(exif)
    return {tag: tags.get_ifd(tag) if tag in (_EXIF_IFD, _GPS_IFD) else value for tag, value in tags.items()}
