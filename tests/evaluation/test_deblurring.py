"""Arguments that `sapnet deblur` rejects before it loads a network."""

import argparse

import pytest

from sapnet.cli.deblur import parser, pixels
from sapnet.errors import UserError
from sapnet.evaluation.deblurring import pairs_of_paths


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
