"""`sapnet deblur`: photos of all kinds, bad ones among them, budgets, and memory."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import cv2
import hydra
import numpy as np
import pytest
import torch
from PIL import Image

from sapnet.cli.argument_types import budget, pixels
from sapnet.cli.argument_types import tile as tile_side
from sapnet.cli.deblur import parser
from sapnet.data.photos import read_photo
from sapnet.errors import UserError
from sapnet.evaluation import deblurring
from sapnet.evaluation.deblurring import deblur, open_network, restore
from sapnet.evaluation.networks import published_config
from sapnet.evaluation.photo_memory import MemoryEstimate
from sapnet.evaluation.photo_tiles import blend, kept_bytes, plan_tiles
from sapnet.interrupts import Interrupted
from tests.checkpoints.writing import write_checkpoint
from tests.integration.conftest import ROOT

GENERATOR = {
    "_target_": "sapnet.models.sapnet.SAPNet",
    "stem": 4,
    "channels": [4, 4, 4],
    "encoder_blocks": 1,
    "decoder_blocks": 1,
    "stages": 2,
}
SAMPLED = {
    "_target_": "sapnet.models.adaptive_network.AdaptiveNetwork",
    "generator": GENERATOR | {"sampled": True},
    "policy_width": 4,
}
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of a uniform network and one that samples, with weights that change the image."""
    folder, paths = tmp_path_factory.mktemp("checkpoints"), {}
    for name, config in (("uniform", GENERATOR), ("sampled", SAMPLED)):
        torch.manual_seed(0)
        network = hydra.utils.instantiate(config)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        paths[name] = write_checkpoint(folder / f"{name}.ckpt", network, config)
    return paths


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("many").mkdir()
    for name in ("a.png", "b.jpg", "c.png"):
        Image.fromarray(PICTURE).save(Path("many") / name)
    return tmp_path


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_many_photos_are_restored_with_a_line_each(photos, checkpoints, capsys):
    Path("many/bad.png").write_bytes(b"no image")
    Path("many/cut.png").write_bytes(Path("many/a.png").read_bytes()[:-20])
    with pytest.raises(UserError, match="2 of 5 photos were not restored"):
        deblur(["many"], "out", checkpoints["uniform"])
    assert names("out") == ["a.png", "b.png", "c.png"]
    out, error = capsys.readouterr()
    assert [line.split(" ")[:2] for line in out.splitlines()] == [
        ["1/4", "many/a.png"],
        ["2/4", "many/b.jpg"],
        ["3/4", "many/c.png"],
    ]
    assert "many/bad.png is not a readable image" in error and "many/cut.png is damaged" in error
    assert len(error.splitlines()) == 2


def test_an_interrupted_run_continues_with_the_missing_photos(photos, checkpoints, capsys):
    deblur(["many/a.png"], "out/a.png", checkpoints["uniform"])
    before = Path("out/a.png").stat().st_mtime_ns
    deblur(["many"], "out", checkpoints["uniform"], skip_existing=True)
    assert names("out") == ["a.png", "b.png", "c.png"] and Path("out/a.png").stat().st_mtime_ns == before
    assert "1 of 3 photos have an output already" in capsys.readouterr().out
    deblur(["many"], "out", Path("none.ckpt"), skip_existing=True)
    with pytest.raises(UserError, match="--skip-existing"):
        deblur(["many"], "out", checkpoints["uniform"])


def test_the_network_sees_16_bits(photos, checkpoints):
    """Levels between two of 8 bits change the result, which equals that of the network to the last bit."""
    deep = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    cv2.imwrite("deep.png", deep[..., ::-1])
    deblur(["deep.png"], "sharp.tif", checkpoints["uniform"])
    levels = read_photo("sharp.tif").levels
    assert levels.dtype == np.uint16
    network = deblurring.network_from_checkpoint(checkpoints["uniform"])[0]
    image = torch.from_numpy(deep.astype(np.float32) / np.float32(65535)).permute(2, 0, 1)
    restored, _ = restore(network, image.contiguous(), torch.device("cpu"))
    expected = (restored.clamp(0, 1) * 65535).round().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(levels, expected.astype(np.uint16))
    unclamped = levels[(levels > 0) & (levels < 65535)]
    assert len(unclamped) > 500 and (unclamped % 257 != 0).mean() > 0.9, "more than 8 bits"


def test_grey_alpha_and_orientation_are_kept(photos, checkpoints):
    image = Image.fromarray(PICTURE).convert("LA")
    image.putalpha(Image.fromarray(PICTURE[..., 0]))
    exif = Image.Exif()
    exif[0x0112], exif[271] = 6, "Maker"
    image.save("grey.png", exif=exif)
    deblur(["grey.png"], "sharp.png", checkpoints["uniform"])
    with Image.open("sharp.png") as sharp:
        assert sharp.mode == "LA" and sharp.size == (20, 30)
        np.testing.assert_array_equal(np.asarray(sharp)[..., 1], np.rot90(PICTURE[..., 0], -1))
        assert (sharp.getexif()[0x0112], sharp.getexif()[271]) == (1, "Maker")
    with pytest.raises(UserError, match="JPEG cannot hold the transparency"):
        deblur(["grey.png"], "sharp.jpg", checkpoints["uniform"])


def test_the_budget_changes_the_points_and_the_result(photos, checkpoints):
    for share in (None, 0.0, -0.75):
        deblur(["many/a.png"], f"{share}/", checkpoints["sampled"], budget=share, show_points=True)
    assert names("0.0") == ["a.png", "a_points_2.png"]
    restored = {share: Path(f"{share}/a.png").read_bytes() for share in ("None", "0.0", "-0.75")}
    assert restored["None"] == restored["0.0"] != restored["-0.75"]
    red = {}
    for share in ("0.0", "-0.75"):
        picture = read_photo(f"{share}/a_points_2.png").levels.astype(int)
        red[share] = (picture[..., 0] - picture[..., 1] > 60).sum() / picture[..., 0].size
    assert red["-0.75"] < 0.6 * red["0.0"]


@pytest.mark.parametrize("options", [{"budget": 0.5}, {"show_points": True}])
def test_a_network_without_points_takes_no_budget(options, photos, checkpoints):
    with pytest.raises(UserError, match=r"samples no points: leave out --(budget 0.5|show-points)\."):
        deblur(["many"], "out", checkpoints["uniform"], **options)
    assert not Path("out").exists()


def test_a_photo_too_large_for_the_memory_is_refused_before_the_others(photos, checkpoints, monkeypatch, capsys):
    """One that takes more than half of the memory is restored with the frugal allocation of the estimate."""
    for name, (height, width) in {"large.png": (300, 400), "middle.png": (30, 100)}.items():
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(Path("many") / name)
    frugal, allocation = [], deblurring.frugal_allocation

    def measure(restore_noise, largest, device):
        restore_noise(32, 48)
        assert largest == 300 * 400
        return MemoryEstimate(2**20, 10000)

    def remember(needed):
        frugal.append(needed)
        return allocation(needed)

    monkeypatch.setattr(deblurring, "measure", measure)
    monkeypatch.setattr(deblurring, "frugal_allocation", remember)
    monkeypatch.setattr(deblurring, "available_memory", lambda device: 50 * 2**20)
    with pytest.raises(UserError, match="1 of 5 photos"):
        deblur(["many"], "out", checkpoints["uniform"])
    assert names("out") == ["a.png", "b.png", "c.png", "middle.png"]
    assert frugal == [False, False, False, True]
    out, error = capsys.readouterr()
    assert error.startswith("many/large.png: 400x300 pixels take about 1.1 GiB of memory, and 0.05 GiB are available:")
    assert out.startswith("1/4 many/a.png")


def test_a_network_that_returns_nan_writes_nothing(photos, checkpoints, monkeypatch):
    nan = torch.full((3, 20, 30), float("nan"))
    monkeypatch.setattr(deblurring, "restore", lambda network, image, device: (nan, {}))
    with pytest.raises(UserError, match=r"many/a.png: the network returns NaN"):
        deblur(["many/a.png"], "out/", checkpoints["uniform"])
    assert not Path("out").exists()


@pytest.mark.parametrize("text", ["0", "-16", "1.5", "wide"])
def test_window_must_be_a_positive_integer(text, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text}: give a whole number"):
        pixels(text)
    with pytest.raises(SystemExit):
        parser().parse_args(["p.png", "-o", "o.png", "-c", "c.ckpt", f"--window={text}"])
    assert "give a whole number" in capsys.readouterr().err


def test_a_budget_is_above_no_points_and_at_most_all():
    assert [budget(text) for text in ("-0.9", "0", "2.0", "3")] == [-0.9, 0, 2, 3]
    for text in ("-1", "3.1", "nan", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text}: give a number above -1"):
            budget(text)
    words = ["a.png", "b.png", "-o", "out", "-c", "c.ckpt"]
    assert parser().parse_args([*words, "--budget", "-0.5"]).budget == -0.5
    with pytest.raises(SystemExit):
        parser().parse_args([*words, "--overwrite", "--skip-existing"])


def test_a_photo_is_restored_without_the_libraries_of_training(photos, checkpoints):
    """And the help without PyTorch. What takes seconds is the import of these."""
    words = ["sapnet", "deblur", "many/a.png", "-o", "sharp.png", "-c", str(checkpoints["sampled"])]
    code = f"""
import contextlib, io, sys
from sapnet import cli
sys.argv = ["sapnet", "deblur", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    cli.main()
heavy = {{"torch", "numpy", "hydra", "PIL", "cv2"}} & set(sys.modules)
assert not heavy, heavy
sys.argv = {words}
cli.main()
heavy = {{"pytorch_lightning", "lightning", "lightning_fabric", "wandb", "albumentations", "matplotlib", "torchmetrics",
    "scipy"}} & set(sys.modules)
assert not heavy, heavy
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "sharp.png\n"), done.stderr


def test_a_photo_is_restored_with_published_weights(photos):
    torch.manual_seed(0)
    network = hydra.utils.instantiate(published_config("mimo_unet")).eval()
    torch.save({"model": network.state_dict()}, "MIMO-UNet.pkl")
    paths = ["many/a.png", "-o", "sharp.png", "--network", "mimo_unet", "--weights", "MIMO-UNet.pkl"]
    deblur(**vars(parser().parse_args(paths)))
    restored, _ = restore(network, read_photo("many/a.png").colours(), torch.device("cpu"))
    expected = (restored.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(read_photo("sharp.png").levels, expected.astype(np.uint8))


def test_one_network_is_named(tmp_path):
    file = tmp_path / "weights.pth"
    for choice in ((None, None, None), (None, "restormer", None), (None, None, file)):
        with pytest.raises(UserError, match="give --checkpoint FILE, or --network NAME and --weights FILE"):
            open_network(*choice)
    with pytest.raises(UserError, match="leave out --network and --weights"):
        open_network(file, "restormer", file)
    with pytest.raises(UserError, match="--ema goes with --checkpoint alone"):
        open_network(None, "restormer", file, ema=True)


# --- tiles


@pytest.fixture
def small_memory(photos, monkeypatch) -> Path:
    """A photo of 300x520 pixels, of which tiles of 256 fit into the memory."""
    levels = cv2.resize(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8), (520, 300), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(levels).save("large.png")
    available = 2 * (20000 * 256 * 256 + kept_bytes(300, 520, torch.device("cpu")))
    monkeypatch.setattr(deblurring, "measure", lambda restore_noise, largest, device: MemoryEstimate(0, 20000))
    monkeypatch.setattr(deblurring, "available_memory", lambda device: available)
    return Path("large.png")


def test_a_photo_too_large_for_the_memory_is_restored_in_tiles(small_memory, checkpoints, capsys):
    deblur(["many/a.png", "large.png"], "out", checkpoints["sampled"], show_points=True, window=256)
    assert names("out") == ["a.png", "a_points_2.png", "large.png", "large_points_2.png"]
    _, error = capsys.readouterr()
    first, *lines = error.splitlines()
    assert first == (
        "large.png: 520x300 pixels take about 2.9 GiB, 2.5 GiB are available: restored in 6 tiles of 256x256"
    )
    parts = [line.split(", ") for line in lines]
    assert [part[:2] for part in parts] == [["2/2 large.png", f"tile {done}/6"] for done in range(1, 7)]
    assert all(part[2].startswith("about ") and part[2].endswith("left") for part in parts[:-1])
    picture = read_photo("out/large_points_2.png").levels.astype(int)
    red = picture[..., 0] - picture[..., 1] > 60
    assert all(
        red[rows, columns].any() for rows in (slice(150), slice(150, 300)) for columns in (slice(200), slice(320, 520))
    )


def test_the_seam_is_not_stronger_than_the_difference_elsewhere(small_memory, checkpoints):
    """Attention over a tile differs from that over the photo; across the middle of an overlap nothing jumps."""
    network = open_network(checkpoints["sampled"])
    image = read_photo(small_memory).colours()
    plan = plan_tiles(300, 520, 256)
    whole, _ = restore(network, image, torch.device("cpu"))
    tiled = blend(plan, lambda tile: restore(network, image[:, *tile.box], torch.device("cpu"))[0])
    difference = tiled - whole
    assert 0 < difference.abs().mean() < 0.1 * (whole - image).abs().mean()
    jumps = difference.diff(dim=2).abs().mean(dim=(0, 1))
    cut = plan.columns.cells[0][1]
    assert jumps[cut - 20 : cut + 20].max() < 3 * jumps.median() + 1e-4


def test_an_interrupt_between_tiles_leaves_nothing(small_memory, checkpoints, monkeypatch):
    passes, restored = [], deblurring.restore

    def interrupted(*arguments):
        if len(passes) == 2:
            raise Interrupted(15)
        passes.append(1)
        return restored(*arguments)

    monkeypatch.setattr(deblurring, "restore", interrupted)
    with pytest.raises(Interrupted):
        deblur(["large.png"], "out/", checkpoints["uniform"])
    assert not Path("out").exists()


def test_the_user_chooses_tiles_or_none(small_memory, checkpoints, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"large.png: 520x300 pixels take .* leave out --tile 0\."):
        deblur(["large.png"], "out/", checkpoints["uniform"], tile=0)
    with pytest.raises(UserError, match="--tile 200: give a multiple of 64, at least 256, or 0"):
        deblur(["large.png"], "out/", checkpoints["uniform"], tile=200)
    monkeypatch.setattr(deblurring, "available_memory", lambda device: None)
    deblur(["large.png"], "whole.png", checkpoints["uniform"])
    assert capsys.readouterr().err == ""
    deblur(["large.png"], "tiles.png", checkpoints["uniform"], tile=256)
    assert "large.png: 520x300 pixels: restored in 6 tiles of 256x256" in capsys.readouterr().err
    difference = read_photo("whole.png").levels.astype(int) - read_photo("tiles.png").levels
    assert np.abs(difference).mean() < 2
    assert parser().parse_args(["p.png", "-o", "o.png", "--tile", "0"]).tile == 0
    with pytest.raises(argparse.ArgumentTypeError, match="-1: give a whole number of pixels, or 0"):
        tile_side("-1")
