"""Panels of images and heat maps."""

import cv2
import numpy as np
import pytest
import torch

from sapnet.evaluation.pictures import HeatMap, figure, heat_map, heat_picture, panel, picture, rasterise


def test_picture_is_rounded_and_clipped_rgb():
    image = torch.tensor([[[0.0, 0.5, 1.0]], [[-1.0, 2.0, float("nan")]], [[0.002, 0.998, 0.25]]])
    assert picture(image).tolist() == [[[0, 0, 1], [128, 255, 254], [255, 0, 64]]]


def test_picture_accepts_bfloat16_and_gradients():
    assert picture(torch.ones(3, 2, 2, dtype=torch.bfloat16, requires_grad=True)).min() == 255


def test_heat_map_goes_from_blue_to_red_and_saturates_at_top():
    values = torch.tensor([[0.0, 5.0, 10.0, 20.0]]).repeat(96, 48)
    drawn = heat_picture(HeatMap(values, top=10.0, unit="px"))
    low, middle, high, above = drawn[0, :4].astype(int)
    assert low[2] > low[0] and high[0] > high[2] and (high == above).all() and not (middle == high).all()
    bar = drawn[97:]
    row = next(row for row in range(len(bar)) if abs(bar[row, 0].astype(int) - low).max() < 10)
    assert abs(bar[row, -1].astype(int) - high).max() < 10, "the colour bar ends at top"
    assert (bar[row + 8 :] < 128).any(), "the colour bar has no tick labels"


@pytest.mark.parametrize("values", [torch.zeros(8, 8), torch.full((8, 8), float("nan")), torch.full((8, 8), 1e30)])
def test_heat_map_of_extreme_values_is_drawn(values):
    assert heat_picture(HeatMap(values)).dtype == np.uint8


def test_panel_keeps_images_unchanged_and_draws_titles_above():
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


def test_panel_accepts_rows_of_different_lengths_and_cells_of_different_sizes():
    three = [torch.rand(3, 16, 64), heat_map(torch.rand(1, 16, 64)), picture(torch.ones(3, 9, 9))]
    drawn = panel([[torch.rand(3, 40, 32)], three], [["a"], ["b", "c", "d"]])
    assert drawn.shape[1] == 3 * 192 + 2 * 6
    assert panel([[torch.rand(3, 100, 4000)]], ["wide"]).shape[1] == 640


def test_long_title_is_shrunk_to_its_column():
    short = panel([[torch.ones(3, 192, 192)] * 2], ["x", "x"])
    long = panel([[torch.ones(3, 192, 192)] * 2], ["a title that is much too long for a column " * 2, "x"])
    assert (long[:, 192:] == short[:, 192:]).all()


def test_empty_panel_is_rejected():
    for rows in ([], [[]]):
        with pytest.raises(ValueError, match="needs at least one picture"):
            panel(rows, [])


def test_panel_is_rgb(tmp_path):
    red = panel([[torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 192, 192)]], [""])
    cv2.imwrite(str(tmp_path / "red.png"), red[..., ::-1])
    assert cv2.imread(str(tmp_path / "red.png"))[-1, 0].tolist() == [0, 0, 255]


def test_figures_do_not_depend_on_the_matplotlib_settings_of_the_user():
    from matplotlib import rc_context

    def draw():
        with figure(200, 100) as drawing:
            drawing.add_subplot().plot([0, 1])
            return rasterise(drawing)

    expected = draw()
    with rc_context({"lines.linewidth": 9, "font.size": 30, "axes.facecolor": "black"}):
        assert (draw() == expected).all()


@pytest.mark.parametrize("width", [1, 29, 57, 58, 113, 226, 639])
def test_figure_has_the_given_size_in_pixels(width):
    with figure(width, 2 * width) as drawing:
        assert rasterise(drawing).shape == (2 * width, width, 3)
