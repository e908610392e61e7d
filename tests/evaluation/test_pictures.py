"""Panels, heat maps and their conversion to 8 bits."""

import cv2
import numpy as np
import pytest
import torch

from sapnet.evaluation.pictures import HeatMap, heat_map, heat_picture, panel, picture


def test_picture_is_rounded_and_clipped():
    image = torch.tensor([[[0.0, 0.5, 1.0]], [[-1.0, 2.0, float("nan")]], [[0.002, 0.998, 0.25]]])
    assert picture(image).tolist() == [[[0, 0, 1], [128, 255, 254], [255, 0, 64]]]


def test_picture_accepts_bfloat16_with_gradients():
    assert picture(torch.ones(3, 2, 2, dtype=torch.bfloat16, requires_grad=True)).min() == 255


def test_heat_map_colours_range_from_blue_to_red():
    values = torch.tensor([[0.0, 5.0, 10.0, 20.0]]).repeat(64, 64)
    drawn = heat_picture(HeatMap(values, top=10.0, unit="px"))
    blue, middle, red, beyond = drawn[0, :4].astype(int)
    assert blue[2] > blue[0] and red[0] > red[2] and (red == beyond).all() and not (middle == red).all()
    # The scale below uses the same colours, from 0 at the left to the top at the right.
    strip = next(row for row in range(64, len(drawn)) if (drawn[row, 0] == blue).all())
    assert (drawn[strip, -1] == red).all()
    assert (drawn[strip + 6 :] < 128).any(), "the scale has no numbers"


@pytest.mark.parametrize("values", [torch.zeros(8, 8), torch.full((8, 8), float("nan")), torch.full((8, 8), 1e30)])
def test_heat_map_of_extreme_values_is_drawn(values):
    assert heat_picture(HeatMap(values)).dtype == np.uint8


def test_panel_contains_images_unchanged_below_titles():
    image = torch.rand(3, 200, 240, generator=torch.Generator().manual_seed(0))
    drawn = panel([[image, image], [image, image]], ["left", "right"])
    title = drawn.shape[0] - 2 * 200 - 6
    assert drawn.shape[1] == 2 * 240 + 6
    for top in (title, title + 206):
        for left in (0, 246):
            assert (drawn[top : top + 200, left : left + 240] == picture(image)).all()
    for left in (0, 246):
        assert (drawn[:title, left : left + 240] < 100).any(), "no title"
    assert (drawn[title + 200 : title + 206] == 255).all()


def test_panel_width_with_rows_of_different_lengths():
    three = [torch.rand(3, 16, 64), heat_map(torch.rand(1, 16, 64)), picture(torch.ones(3, 9, 9))]
    drawn = panel([[torch.rand(3, 40, 32)], three], [["a"], ["b", "c", "d"]])
    assert drawn.shape[1] == 3 * 192 + 2 * 6
    assert panel([[torch.rand(3, 100, 4000)]], ["wide"]).shape[1] == 640


def test_long_title_does_not_reach_the_next_column():
    short = panel([[torch.ones(3, 192, 192)] * 2], ["x", "x"])
    long = panel([[torch.ones(3, 192, 192)] * 2], ["a title that is much too long for a column " * 2, "x"])
    assert (long[:, 192:] == short[:, 192:]).all()


def test_empty_panel_is_rejected():
    for rows in ([], [[]]):
        with pytest.raises(ValueError, match="a panel needs a picture"):
            panel(rows, [])


def test_panel_is_rgb(tmp_path):
    red = panel([[torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 192, 192)]], [""])
    cv2.imwrite(str(tmp_path / "red.png"), red[..., ::-1])
    assert cv2.imread(str(tmp_path / "red.png"))[-1, 0].tolist() == [0, 0, 255]
