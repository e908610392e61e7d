"""Photos of all kinds are read, changed and written without losing bits, transparency or metadata."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from sapnet.data.photos import Photo, check_output_format, read_photo, read_photo_size, write_photo
from sapnet.errors import UserError

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (9, 14, 4), dtype=np.uint16)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTATION, MAKER, EXIF_IFD, GPS_IFD, DATE, WIDTH, HEIGHT = 0x0112, 271, 0x8769, 0x8825, 0x9003, 0xA002, 0xA003


def camera_exif(orientation: int = 6, description: str = "") -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER] = orientation, "Maker"
    exif[EXIF_IFD] = {DATE: "2024:01:02 03:04:05", WIDTH: 14, HEIGHT: 9}
    exif[GPS_IFD] = {1: "N", 2: (50.0, 4.0, 30.0)}
    if description:
        exif[270] = description
    return exif.tobytes()


def png(levels: np.ndarray, colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Encode a 16-bit PNG of any kind, with chunks before the pixels."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    framed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


# --- what is read


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("P", 3)])
def test_kinds_of_images_keep_their_channels(mode: str, channels: int, tmp_path: Path) -> None:
    image = Image.fromarray(PICTURE).convert(mode)
    image.save(tmp_path / "a.png")
    levels = read_photo(tmp_path / "a.png").levels
    assert levels.shape == (9, 14, channels) and levels.dtype == np.uint8
    expected = np.asarray(image.convert({"1": "L", "P": "RGB"}.get(mode, mode)))
    np.testing.assert_array_equal(levels.squeeze(), expected)


def test_transparent_palette_has_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(PICTURE).quantize(4)
    image.save(tmp_path / "a.png", transparency=2)
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.levels[..., 3] == 0, np.asarray(image) == 2)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_of_another_program_are_read_exactly(channels: int, suffix: str, tmp_path: Path) -> None:
    levels = DEEP[..., :channels]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    cv2.imwrite(str(tmp_path / f"a{suffix}"), levels[..., order])
    np.testing.assert_array_equal(read_photo(tmp_path / f"a{suffix}").levels, levels)


def test_rare_16_bit_pngs_are_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(DEEP[..., :2], 4))
    np.testing.assert_array_equal(read_photo(path).levels, DEEP[..., :2])
    for channels, colour_type in ((1, 0), (3, 2)):
        levels = DEEP[..., :channels]
        path.write_bytes(png(levels, colour_type, (b"tRNS", levels[2, 3].astype(">u2").tobytes())))
        photo = read_photo(path)
        np.testing.assert_array_equal(photo.levels[..., :-1], levels)
        np.testing.assert_array_equal(np.argwhere(photo.levels[..., -1] == 0), [[2, 3]])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_orientation_is_applied_to_photo_and_size(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    blocks = np.kron(np.array([[0, 80, 160], [240, 200, 40]], np.uint8), np.ones((16, 16), np.uint8))
    Image.fromarray(blocks).convert("RGB").save(path, exif=camera_exif(orientation))
    methods = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"]
    image = Image.fromarray(blocks)
    upright = image if orientation == 1 else image.transpose(Image.Transpose[methods[orientation - 2]])
    photo = read_photo(path)
    assert photo.levels.shape[:2] == read_photo_size(path) == upright.size[::-1]
    assert np.abs(photo.levels[..., 0].astype(int) - np.asarray(upright)).mean() < 4


def test_orientation_of_16_bits_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(DEEP[..., :3], 2, (b"eXIf", camera_exif(6)[6:])))
    np.testing.assert_array_equal(read_photo(path).levels, np.rot90(DEEP[..., :3], -1))
    assert read_photo_size(path) == (14, 9)


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


UNREADABLE = {
    "film.MP4": (lambda path: path.write_bytes(b"x"), "is a video: extract its frames"),
    "a.heic": (lambda path: path.write_bytes(b"x"), "HEIC file: convert it"),
    "a.gif": (
        lambda path: save(
            path, Image.fromarray(PICTURE), save_all=True, append_images=[Image.fromarray(PICTURE[::-1])]
        ),
        "2 frames of an animation",
    ),
    "a.tif": (
        lambda path: save(path, Image.fromarray(PICTURE), save_all=True, append_images=[Image.fromarray(PICTURE)]),
        "2 pages",
    ),
    "float.tif": (lambda path: save(path, Image.new("F", (4, 4))), "convert it to 16 or 8 bits"),
    "cmyk.jpg": (lambda path: save(path, Image.new("CMYK", (4, 4))), "CMYK"),
    "text.png": (lambda path: path.write_bytes(b"text"), "not a readable image"),
    "none.png": (lambda path: None, "cannot read"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_photo_is_refused_by_name(name: str, tmp_path: Path) -> None:
    write, words = UNREADABLE[name]
    write(tmp_path / name)
    for read in (read_photo, read_photo_size):
        with pytest.raises(UserError, match=words) as error:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


def test_a_gif_of_one_frame_is_read(tmp_path: Path) -> None:
    assert read_photo(save(tmp_path / "a.gif", Image.fromarray(PICTURE))).levels.shape == (9, 14, 3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_truncated_16_bit_file_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    write_photo(path, Photo(DEEP[..., :3]))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged"):
        read_photo(path)


# --- what is written


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_lossless_files_hold_all_bits(suffix: str, channels: int, deep: bool, tmp_path: Path) -> None:
    levels = DEEP[..., :channels] if deep else (DEEP[..., :channels] >> 8).astype(np.uint8)
    write_photo(tmp_path / "new" / f"a{suffix}", Photo(levels))
    back = read_photo(tmp_path / "new" / f"a{suffix}").levels
    # 16-bit grey with alpha is written in colour.
    np.testing.assert_array_equal(back, levels[..., (0, 0, 0, 1)] if deep and channels == 2 else levels)
    other = cv2.imread(str(tmp_path / "new" / f"a{suffix}"), cv2.IMREAD_UNCHANGED)
    assert other.dtype == levels.dtype and other.shape[:2] == (9, 14)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_16_bits_are_rounded_where_the_format_holds_8(suffix: str, tmp_path: Path) -> None:
    flat = np.full((16, 16, 3), 100 * 257 + 128, np.uint16)
    write_photo(tmp_path / f"a{suffix}", Photo(flat))
    assert np.abs(read_photo(tmp_path / f"a{suffix}").levels.astype(int) - 100).max() <= 1


@pytest.mark.parametrize("target", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("deep", [False, True])
def test_metadata_is_carried_over(source: str, target: str, deep: bool, tmp_path: Path) -> None:
    """The orientation is reset, and the size of the upright image is recorded."""
    path = tmp_path / f"a{source}"
    Image.fromarray(PICTURE).save(path, exif=camera_exif(), icc_profile=PROFILE)
    photo = read_photo(path)
    photo = replace(photo, levels=photo.levels * np.uint16(257)) if deep else photo
    write_photo(tmp_path / f"b{target}", photo)
    with Image.open(tmp_path / f"b{target}") as image:
        image.load()
        exif = image.getexif()
        assert image.size == (9, 14) and image.info["icc_profile"] == PROFILE
        assert exif[ORIENTATION] == 1 and exif[MAKER] == "Maker"
        assert exif.get_ifd(EXIF_IFD) == {DATE: "2024:01:02 03:04:05", WIDTH: 9, HEIGHT: 14}
        assert exif.get_ifd(GPS_IFD) == {1: "N", 2: (50.0, 4.0, 30.0)}


def test_damaged_metadata_do_not_prevent_a_restoration(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    photo = read_photo(tmp_path / "a.png")
    assert photo.exif == b"" and photo.levels.shape == PICTURE.shape


def test_exif_data_too_long_for_a_jpeg_are_left_out(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=camera_exif(description="x" * 70000))
    write_photo(tmp_path / "a.jpg", read_photo(tmp_path / "a.png"))
    assert not Image.open(tmp_path / "a.jpg").getexif()


def test_transparency_is_refused_for_jpeg(tmp_path: Path) -> None:
    opaque, clear = np.full((4, 4, 4), 255, np.uint8), np.zeros((4, 4, 4), np.uint8)
    check_output_format(tmp_path / "a.png", Photo(clear))
    check_output_format(tmp_path / "a.jpg", Photo(opaque))
    write_photo(tmp_path / "a.jpg", Photo(opaque))
    assert read_photo(tmp_path / "a.jpg").levels.shape == (4, 4, 3)
    with pytest.raises(UserError, match="JPEG cannot hold the transparency"):
        check_output_format(tmp_path / "a.jpg", Photo(clear))


# --- what a network sees and changes


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("deep", [False, True])
def test_colours_and_back_change_nothing(channels: int, deep: bool) -> None:
    levels = DEEP[..., :channels] if deep else (DEEP[..., :channels] >> 8).astype(np.uint8)
    photo = Photo(levels, b"exif", b"profile")
    colours = photo.colours()
    assert colours.shape == (3, 9, 14) and colours.dtype == torch.float32
    if channels < 3:
        assert torch.equal(colours[0], colours[1]) and torch.equal(colours[0], colours[2])
    back = photo.with_colours(colours)
    np.testing.assert_array_equal(back.levels, levels)
    assert (back.exif, back.profile) == (b"exif", b"profile")


def test_other_colours_are_rounded_and_alpha_stays() -> None:
    photo = Photo(DEEP)
    restored = torch.tensor([-0.5, 1000.6 / 65535, 2.0])[:, None, None].expand(3, 9, 14)
    levels = photo.with_colours(restored).levels
    assert [int(levels[0, 0, c]) for c in range(3)] == [0, 1001, 65535]
    np.testing.assert_array_equal(levels[..., 3], DEEP[..., 3])
    grey = Photo(DEEP[..., :1]).with_colours(torch.tensor([0.1, 0.2, 0.6])[:, None, None].expand(3, 9, 14))
    assert grey.levels.shape == (9, 14, 1) and int(grey.levels[0, 0, 0]) == round(0.3 * 65535)
