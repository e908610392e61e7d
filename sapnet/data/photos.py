"""Photos as people have them: 8 or 16 bits, grey or colour, with transparency, EXIF data and colour profile."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader, BytesIO
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16
from PIL import Image
from torch import Tensor

from sapnet.data.image_files import (
    FORMATS,
    HEAD_BYTES,
    ORIENTATION,
    bits_per_channel,
    cannot_read,
    damaged,
    open_image,
    read_complete,
    upright_size,
)
from sapnet.data.images import WRITERS
from sapnet.data.photo_metadata import carried_exif, encode_png16, encode_tiff
from sapnet.errors import UserError
from sapnet.files import write_atomically

Levels = UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]

_PILLOW_OPTIONS = WRITERS | {".webp": {"format": "WEBP", "quality": 95}}
_JPEG_SUFFIXES, _TIFF_SUFFIXES = (".jpg", ".jpeg"), (".tif", ".tiff")
#: File name endings of photos that can be written.
OUTPUT_SUFFIXES = (*_PILLOW_OPTIONS, *_TIFF_SUFFIXES)
_VIDEOS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp"})
_CAMERA_FORMATS = frozenset({".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"})
_JPEG_EXIF_LIMIT = 65533
_GREY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I;16L")
_MODES = (*_GREY_MODES, "I", "P", "PA", "RGB", "RGBA", "RGBX")
_SAMPLE_FORMAT = 339
_PNG_COLOUR_TYPE_AT, _PNG_GREY_ALPHA = 25, 4


@dataclass(frozen=True)
class Photo:
    """A photo, upright.

    Attributes:
        levels: Stored values with 8 or 16 bits: grey, grey with alpha, RGB or RGBA.
        exif: EXIF data with its prefix; empty if there are none.
        profile: ICC colour profile.
    """

    levels: Levels
    exif: bytes = b""
    profile: bytes | None = None

    @property
    def highest(self) -> int:
        """Largest stored value: 255 or 65535."""
        return int(np.iinfo(self.levels.dtype).max)

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.levels.shape[2] in (2, 4)

    @property
    def is_grey(self) -> bool:
        """Whether there is one channel beside alpha."""
        return self.levels.shape[2] < 3

    def colours(self) -> Float[Tensor, "3 h w"]:
        """Return the colours in [0, 1] without alpha; grey on three channels."""
        channels = (0, 0, 0) if self.is_grey else (0, 1, 2)
        values = np.stack([self.levels[..., channel] for channel in channels]).astype(np.float32)
        return torch.from_numpy(values).div_(self.highest)

    def with_colours(self, restored: Float[Tensor, "3 h w"]) -> "Photo":
        """Return the photo with other colours, rounded to its own bits; alpha and metadata stay.

        A grey photo gets the mean of the three channels.

        Args:
            restored: Colours, all finite; values outside [0, 1] are clamped.
        """
        colours = restored.detach().float().cpu()
        colours = colours.mean(dim=0, keepdim=True) if self.is_grey else colours
        rounded = colours.clamp(0, 1).mul_(self.highest).round_().numpy().astype(self.levels.dtype)
        channels = [*rounded, self.levels[..., -1]] if self.has_alpha else list(rounded)
        return replace(self, levels=np.stack(channels, axis=-1))


def read_photo(path: str | Path) -> Photo:
    """Read a PNG, JPEG, BMP, TIFF, WebP or GIF file.

    The orientation tag is applied, palettes are resolved, and 16 bits per channel stay.

    Raises:
        UserError: The file is missing, empty, damaged, a video, or of a kind that cannot be restored.
    """
    path = Path(path)
    _check_suffix(path)
    data = read_complete(path)
    with _open(path, BytesIO(data)) as image:
        bits = _check_kind(path, image, data)
        _check_frames(path, image)
        image.load()
        levels = _channels16(path, image, data) if bits == 16 else _channels(image)
        levels = _turned(levels, image)
        return Photo(levels, carried_exif(image, *levels.shape[:2]), image.info.get("icc_profile"))


def read_photo_size(path: str | Path) -> tuple[int, int]:
    """Read the height and width of an upright photo from the header of its file.

    Raises:
        UserError: As far as the header tells, `read_photo` cannot read the file.
    """
    path = Path(path)
    _check_suffix(path)
    try:
        with path.open("rb") as file, _open(path, file) as image:
            file.seek(0)
            _check_kind(path, image, file.read(HEAD_BYTES))
            _check_frames(path, image)
            return upright_size(image, file)
    except OSError as error:
        raise cannot_read(path, error) from error


def check_output_format(path: Path, photo: Photo) -> None:
    """Check that a file format can hold a photo's transparency.

    Args:
        path: File to write.
        photo: The photo.

    Raises:
        UserError: It cannot.
    """
    if path.suffix.lower() in _JPEG_SUFFIXES and photo.has_alpha and photo.levels[..., -1].min() < photo.highest:
        raise UserError(f"{path}: JPEG cannot hold the transparency of this photo; choose a name that ends in .png.")


def write_photo(path: str | Path, photo: Photo) -> None:
    """Write a photo atomically with its metadata; missing folders are created.

    PNG and TIFF hold 8 or 16 bits without loss. JPEG and WebP (quality 95) hold 8 bits, and JPEG no alpha.

    Raises:
        UserError: The file cannot be written.
    """
    path = Path(path)
    data = _encode(photo, path.suffix.lower())
    try:
        write_atomically(path, data, durable=False)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): free space or choose another folder.") from error


def _encode(photo: Photo, suffix: str) -> bytes:
    levels, exif, profile = photo.levels, photo.exif, photo.profile
    deep = levels.dtype == np.uint16
    if deep and levels.shape[2] == 2 and suffix in (".png", *_TIFF_SUFFIXES):
        levels = levels[..., (0, 0, 0, 1)]  # few programs read 16-bit grey with alpha
    if suffix in _TIFF_SUFFIXES:
        return encode_tiff(levels, exif, profile)
    if deep and suffix == ".png":
        return encode_png16(levels, exif, profile)
    if deep:
        levels = ((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if suffix in _JPEG_SUFFIXES:
        levels = levels[..., :-1] if photo.has_alpha else levels
        exif = exif if len(exif) <= _JPEG_EXIF_LIMIT else b""
    image = Image.fromarray(np.ascontiguousarray(levels[..., 0] if levels.shape[2] == 1 else levels))
    encoded = BytesIO()
    image.save(encoded, exif=exif, icc_profile=profile, **_PILLOW_OPTIONS[suffix])
    return encoded.getvalue()


@contextmanager
def _open(path: Path, file: BytesIO | BufferedReader) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # Pillow warns of large images and of odd metadata.
        warnings.simplefilter("ignore")
        with open_image(path, file, (*FORMATS, "GIF")) as image:
            yield image


def _check_suffix(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in _VIDEOS:
        raise UserError(f"{path} is a video: extract its frames as images first, and give the folder with them.")
    if suffix in _CAMERA_FORMATS:
        raise UserError(f"{path} is a {suffix[1:].upper()} file: convert it to JPEG, PNG or TIFF first.")


def _check_kind(path: Path, image: Image.Image, head: bytes) -> int:
    """Return the bits per channel."""
    bits = bits_per_channel(image, head)
    tags = getattr(image, "tag_v2", {})
    if bits > 16 or bits in range(9, 16) or set(tags.get(_SAMPLE_FORMAT, (1,))) != {1}:
        kind = f"{bits} bits per channel" if set(tags.get(_SAMPLE_FORMAT, (1,))) == {1} else "floating-point values"
        raise UserError(f"{path} has {kind}: convert it to 16 or 8 bits first.")
    if image.mode not in _MODES:
        raise UserError(f"{path} is a {image.mode} image: convert it to RGB first.")
    return bits


def _check_frames(path: Path, image: Image.Image) -> None:
    # The further images of a phone's JPEG are for depth, brightness or the screen.
    frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
    if frames > 1:
        kind = "pages" if image.format == "TIFF" else "frames of an animation"
        raise UserError(f"{path} holds {frames} {kind}: save each as an image of its own first.")


def _channels(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    alpha = "A" in image.getbands() or "transparency" in image.info
    mode = ("L" if image.mode in _GREY_MODES else "RGB") + ("A" if alpha else "")
    levels = np.array(image if image.mode == mode else image.convert(mode))
    return levels[..., None] if levels.ndim == 2 else levels


def _channels16(path: Path, image: Image.Image, data: bytes) -> UInt16[np.ndarray, "h w c"]:
    """Decode 16 bits with OpenCV, and compare with the 8 bits that Pillow has decoded."""
    levels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None or levels.dtype != np.uint16:
        raise damaged(path)
    levels = levels[..., None] if levels.ndim == 2 else levels[..., [2, 1, 0, 3][: levels.shape[2]]]
    if image.mode.startswith("I") and "transparency" in image.info:
        opaque = levels != image.info["transparency"]
        levels = np.concatenate([levels, np.where(opaque, 65535, 0).astype(np.uint16)], axis=2)
    decoded = np.asarray(image)
    decoded = decoded.reshape(*decoded.shape[:2], -1)
    high = levels if image.mode.startswith("I") else levels // 256
    shared = min(decoded.shape[2], high.shape[2])
    if decoded.shape[:2] != high.shape[:2] or (decoded[..., :shared] != high[..., :shared]).any():
        raise UserError(f"{path} is a 16-bit file of an unusual kind: save it as a plain 16-bit PNG or TIFF first.")
    grey_with_alpha = image.format == "PNG" and data[_PNG_COLOUR_TYPE_AT] == _PNG_GREY_ALPHA
    return levels[..., (0, 3)] if grey_with_alpha else levels


def _turned(levels: Levels, image: Image.Image) -> UInt8[np.ndarray, "h2 w2 c"] | UInt16[np.ndarray, "h2 w2 c"]:
    # Pillow has turned a TIFF already, and then reports no orientation.
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow has no error class for damaged EXIF data
        return levels
    if orientation in (5, 6, 7, 8):
        levels = levels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        levels = levels[::-1]
    if orientation in (2, 3, 6, 7):
        levels = levels[:, ::-1]
    return np.ascontiguousarray(levels)
