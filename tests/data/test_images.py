"""Reading and writing of images."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from jaxtyping import TypeCheckError
from PIL import Image

from sapnet.data.images import read_image, read_size, to_array, to_tensor, write_image
from sapnet.errors import UserError

PICTURE = np.random.default_rng(0).integers(0, 256, (21, 30, 3), dtype=np.uint8)
ENCODINGS = {
    "png": {"format": "PNG"},
    "jpeg": {"format": "JPEG"},
    "progressive jpeg": {"format": "JPEG", "progressive": True, "quality": 95},
    "bmp": {"format": "BMP"},
    "lossless webp": {"format": "WEBP", "lossless": True},
    "webp": {"format": "WEBP"},
    "tiff": {"format": "TIFF"},
}


def encoded(image: Image.Image | np.ndarray = PICTURE, **options) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "lossless webp"])
def test_lossless_files_are_read_exactly_in_rgb(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(encoded(**ENCODINGS[kind]))
    np.testing.assert_array_equal(read_image(path), PICTURE)


@pytest.mark.parametrize("kind", ENCODINGS)
# Pillow warns of what it meets in a cut TIFF before it raises.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_file_truncated_at_any_byte_is_rejected(tmp_path: Path, kind: str) -> None:
    """Only the padding at the end of a BMP may be missing. Tests every byte at both ends and every 13th between."""
    path, data = tmp_path / "cut.img", encoded(PICTURE[:9, :11], **ENCODINGS[kind])
    path.write_bytes(data)
    whole = read_image(path)
    accepted = []
    lengths = {*range(20), *range(20, len(data), 13), *range(len(data) - 30, len(data))}
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(read_image(path), whole)
            accepted.append(length)
        except UserError as error:
            assert str(path) in str(error)
    assert len(accepted) <= (3 if kind == "bmp" else 0)


def test_truncation_is_found_that_pillow_does_not_detect(tmp_path: Path) -> None:
    """The end marker of an embedded JPEG and a missing IEND chunk are not accepted."""
    thumbnail = encoded(PICTURE[:8, :8], format="JPEG")
    data = encoded(format="JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "camera.jpg"
    path.write_bytes(data[:2] + segment + data[2:] + b"trailer of a phone")
    assert read_image(path).shape == (21, 30, 3)
    path.write_bytes(data[:2] + segment + data[2:-2])
    with pytest.raises(UserError, match="truncated"):
        read_image(path)

    png = tmp_path / "a.png"
    png.write_bytes(encoded(format="PNG")[:-12])
    assert np.asarray(Image.open(png)).shape == (21, 30, 3)
    with pytest.raises(UserError, match="truncated"):
        read_image(png)


def test_flipped_byte_in_a_png_is_rejected(tmp_path: Path) -> None:
    data = encoded(format="PNG")
    path = tmp_path / "a.png"
    for position in range(0, len(data), 37):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        with pytest.raises(UserError):
            read_image(path)


@pytest.mark.parametrize("read", [read_image, read_size])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"", "empty file"),
        (b"not an image at all", "not a readable image"),
        (encoded(np.zeros((4, 4), np.uint16), format="PNG"), "more than 8 bits"),
        (encoded(Image.new("F", (4, 4)), format="TIFF"), "more than 8 bits"),
        (encoded(Image.new("CMYK", (4, 4)), format="JPEG"), "CMYK"),
        (encoded(Image.new("RGB", (4, 4)), format="GIF"), "not a readable image"),
    ],
)
def test_unsupported_file_is_rejected(tmp_path: Path, read, content: bytes | None, message: str) -> None:
    path = tmp_path / "odd.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_is_rejected(tmp_path: Path, suffix: str) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint16))
    assert Image.open(path).mode == "RGB"
    for read in (read_image, read_size):
        with pytest.raises(UserError, match="more than 8 bits"):
            read(path)


def test_folder_instead_of_a_file_is_rejected(tmp_path: Path) -> None:
    for read in (read_image, read_size):
        with pytest.raises(UserError, match="cannot read"):
            read(tmp_path)


def test_grey_and_palette_images_become_rgb(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    path.write_bytes(encoded(PICTURE[..., 0], format="PNG"))
    np.testing.assert_array_equal(read_image(path), np.repeat(PICTURE[..., :1], 3, axis=2))
    few = Image.fromarray(PICTURE).quantize(16)
    path.write_bytes(encoded(few, format="PNG"))
    np.testing.assert_array_equal(read_image(path), np.asarray(few.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opaque_alpha_is_dropped_and_transparency_rejected(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "alpha.png"
    image = Image.fromarray(PICTURE).convert(mode)
    path.write_bytes(encoded(image, format="PNG"))
    np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))
    image.putpixel((3, 2), (*image.getpixel((3, 2))[:-1], 254))
    path.write_bytes(encoded(image, format="PNG"))
    with pytest.raises(UserError, match="transparent"):
        read_image(path)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tag_is_applied_to_image_and_size(tmp_path: Path, orientation: int, kind: str) -> None:
    half = np.zeros((16, 32, 3), np.uint8)
    half[:, 16:] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "phone.jpg"
    path.write_bytes(encoded(half, **ENCODINGS[kind], exif=exif.tobytes()))
    image = read_image(path)
    assert image.shape == ((32, 16, 3) if orientation >= 5 else (16, 32, 3))
    assert read_size(path) == image.shape[:2]
    expected = {1: "right", 2: "left", 3: "left", 4: "right", 5: "bottom", 6: "bottom", 7: "top", 8: "top"}
    sides = {"left": image[:, :2], "right": image[:, -2:], "top": image[:2], "bottom": image[-2:]}
    assert [side for side, pixels in sides.items() if pixels.min() > 128] == [expected[orientation]]


def test_orientation_behind_the_pixels_of_a_png_is_applied(tmp_path: Path) -> None:
    """Where some programs append it. Pillow would decode every PNG to look for it there."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data, path = encoded(format="PNG", exif=exif), tmp_path / "late.png"
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    path.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    np.testing.assert_array_equal(read_image(path), np.rot90(PICTURE, -1))
    assert read_size(path) == (30, 21)


@given(npst.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_conversion_to_tensor_and_back_is_lossless(image: np.ndarray) -> None:
    tensor = to_tensor(image)
    assert tensor.shape == (3, *image.shape[:2]) and tensor.dtype == torch.float32
    assert tensor.min() >= 0 and tensor.max() <= 1
    np.testing.assert_array_equal(to_array(tensor), image)


def test_arrays_are_rounded_to_nearest_and_clamped() -> None:
    """Truncation would cost 0.04 dB."""
    values = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 99.4 / 255, 99.6 / 255, 1.5])
    levels = to_array(values.expand(3, 1, 6))
    np.testing.assert_array_equal(levels[0, :, 0], [0, 0, 1, 99, 100, 255])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_image_is_rejected(bad: float) -> None:
    with pytest.raises(UserError, match="NaN or infinite"):
        to_array(torch.full((3, 2, 2), bad))


def test_png_is_written_losslessly_and_folders_are_created(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.png"
    write_image(path, PICTURE)
    np.testing.assert_array_equal(read_image(path), PICTURE)
    assert read_size(path) == (21, 30)
    write_image(path.with_suffix(".jpg"), PICTURE)
    assert read_image(path.with_suffix(".jpg")).shape == PICTURE.shape


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    write_image(path, PICTURE)

    def full_disk(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_image(path, PICTURE[::-1])
    np.testing.assert_array_equal(read_image(path), PICTURE)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_unknown_suffix_and_wrong_array_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.png"):
        write_image(tmp_path / "a.gif", PICTURE)
    with pytest.raises((ValueError, TypeCheckError), match=r"uint8|UInt8"):
        write_image(tmp_path / "a.png", PICTURE / 255)
    with pytest.raises(UserError, match="cannot write"):
        (tmp_path / "file").write_text("")
        write_image(tmp_path / "file" / "a.png", PICTURE)
