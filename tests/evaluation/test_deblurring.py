"""Arguments that `sapnet deblur` rejects before it loads a network, and deblurring with published weights."""

import argparse

import hydra
import numpy as np
import pytest
import torch

from sapnet.cli.deblur import parser, pixels
from sapnet.data.images import read_image, to_array, to_tensor, write_image
from sapnet.errors import UserError
from sapnet.evaluation.deblurring import deblur, open_network, pairs_of_paths
from sapnet.evaluation.networks import published_config


def test_unwritable_output_is_rejected(tmp_path):
    source = tmp_path / "photo.png"
    source.touch()
    for folder in (tmp_path / "photo.png" / "deep", "/proc/none"):
        with pytest.raises(UserError, match=r"use another|choose another"):
            pairs_of_paths(source, tmp_path / folder / "out.png", overwrite=False)
    target = tmp_path / "new" / "out.png"
    assert pairs_of_paths(source, target, overwrite=False) == [(source, target)]
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"], "a folder was created"


@pytest.mark.parametrize("text", ["0", "-16", "1.5", "wide"])
def test_window_must_be_a_positive_integer(text, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text}: give a whole number"):
        pixels(text)
    with pytest.raises(SystemExit):
        parser().parse_args(["p.png", "-o", "o.png", "-c", "c.ckpt", f"--window={text}"])
    assert "give a whole number" in capsys.readouterr().err


def test_a_photo_is_restored_with_published_weights(tmp_path):
    torch.manual_seed(0)
    network = hydra.utils.instantiate(published_config("mimo_unet")).eval()
    torch.save({"model": network.state_dict()}, tmp_path / "MIMO-UNet.pkl")
    write_image(tmp_path / "photo.png", to_array(torch.rand(3, 9, 6)))
    paths = ["photo.png", "-o", "sharp.png", "--network", "mimo_unet", "--weights", "MIMO-UNet.pkl"]
    arguments = vars(parser().parse_args(paths))
    for key in ("input", "output", "weights"):
        arguments[key] = tmp_path / arguments[key]
    deblur(**arguments)
    with torch.no_grad():
        expected = network(to_tensor(read_image(tmp_path / "photo.png"))[None])[-1][0]
    np.testing.assert_array_equal(read_image(tmp_path / "sharp.png"), to_array(expected))


def test_one_network_is_named(tmp_path):
    file = tmp_path / "weights.pth"
    for choice in ((None, None, None), (None, "restormer", None), (None, None, file)):
        with pytest.raises(UserError, match="give --checkpoint FILE, or --network NAME and --weights FILE"):
            open_network(*choice)
    with pytest.raises(UserError, match="leave out --network and --weights"):
        open_network(file, "restormer", file)
