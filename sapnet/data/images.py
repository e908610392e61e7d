"""Image files with 8 bits per channel: strict reading, atomic writing, and conversion to and from tensors."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from sapnet.data.image_files import HEAD_BYTES, bits_per_channel, cannot_read, open_image, read_complete, upright_size
from sapnet.errors import UserError
from sapnet.files import write_atomically

#: Options of Pillow for the formats that are written, by file name ending.
WRITERS = {
    ".png": {"format": "PNG", "compress_level": 3},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}


def read_image(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read a PNG, JPEG, BMP, TIFF or WebP file as an RGB image with 8 bits per channel.

    Grey images are repeated on three channels. An opaque alpha channel is dropped; transparency is rejected, because
    the colours of transparent pixels are undefined. More than 8 bits per channel are rejected rather than truncated.
    The orientation tag is applied.

    Raises:
        UserError: The file is missing, empty, damaged, truncated, not an image, or of a kind that is rejected.
    """
    path = Path(path)
    data = read_complete(path)
    with open_image(path, BytesIO(data)) as image:
        _check_kind(path, image, data)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return np.array(_to_rgb(path, image))


def read_size(path: str | Path) -> tuple[int, int]:
    """Read the height and width of an image as returned by `read_image` from the header of the file (0.1 ms).

    Raises:
        UserError: The file is missing, empty, not an image, or has more than 8 bits per channel. Damage after the
            header is not detected.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, open_image(path, file) as image:
            file.seek(0)
            _check_kind(path, image, file.read(HEAD_BYTES))
            return upright_size(image, file)
    except OSError as error:
        raise cannot_read(path, error) from error


def write_image(path: str | Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an RGB image as PNG (lossless) or JPEG (quality 95), atomically; missing folders are created.

    Raises:
        UserError: The file name ends neither in .png nor in .jpg, or the file cannot be written.
        ValueError: The array is not uint8 of shape [h, w, 3].
    """
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be uint8 [h, w, 3], not {image.dtype} {list(image.shape)}")
    options = WRITERS.get(path.suffix.lower())
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


def _check_kind(path: Path, image: Image.Image, head: bytes) -> None:
    if bits_per_channel(image, head) > 8:
        raise UserError(f"{path} has more than 8 bits per channel: convert it to 8 bits first.")
    if image.mode not in ("RGB", "L", "1", "P", "LA", "PA", "RGBA"):
        raise UserError(f"{path} is a {image.mode} image: convert it to RGB first.")


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise UserError(f"{path} is partly transparent: flatten it on a background first.")
    return image.convert("RGB")
