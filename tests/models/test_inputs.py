"""Padding, range and cropping of a network's input."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.models.inputs import InputRequirements


@pytest.mark.parametrize(
    "requirements, sizes",
    [
        (InputRequirements(), {(1, 1): (1, 1), (720, 1280): (720, 1280)}),
        (InputRequirements(8), {(1, 9): (8, 16), (720, 1280): (720, 1280)}),
        (InputRequirements(128, square=True), {(128, 128): (128, 128), (720, 1280): (1280, 1280), (9, 2): (128, 128)}),
        (InputRequirements(32, always_padded=True), {(720, 1280): (736, 1312), (31, 32): (32, 64)}),
    ],
)
def test_padded_sizes(requirements, sizes):
    assert {size: requirements.padded_size(*size) for size in sizes} == sizes


def test_text():
    expected = "multiples of 8; reflect at the bottom and right; values 0 to 1"
    assert str(InputRequirements(8, "reflect")) == expected
    expected = "square, multiples of 16 that exceed the size, at least 64; zeros on all sides; values -1 to 1"
    assert str(InputRequirements(16, "zeros", True, True, True, black=-1, minimum=64)) == expected


@pytest.mark.parametrize("padding, mode", [("reflect", "reflect"), ("replicate", "edge"), ("zeros", "constant")])
@pytest.mark.parametrize("centred", [False, True])
@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20))
def test_padding_equals_that_of_numpy(padding, mode, centred, height, width):
    """NumPy mirrors repeatedly where the image is smaller than the padding."""
    image = torch.rand(2, 3, height, width)
    bottom, right = -height % 16, -width % 16
    top, left = (bottom // 2, right // 2) if centred else (0, 0)
    expected = np.pad(image.numpy(), ((0, 0), (0, 0), (top, bottom - top), (left, right - left)), mode=mode)
    padded = InputRequirements(16, padding, centred).pad(image)
    np.testing.assert_array_equal(padded.numpy(), expected)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), centred=st.booleans(), square=st.booleans())
def test_a_function_that_returns_its_input_returns_the_image(height, width, centred, square):
    requirements = InputRequirements(8, "reflect", centred, square, black=-1)
    image = torch.rand(1, 3, height, width, dtype=torch.float64)
    (output,) = requirements.run(lambda padded: [padded], image)
    torch.testing.assert_close(output, image)


def test_the_function_gets_values_in_its_range_and_zeros_around_them():
    image = torch.rand(1, 3, 3, 3)

    def restore(padded):
        torch.testing.assert_close(padded[..., :3, :3], image * 2 - 1)
        assert padded.shape[-2:] == (4, 4) and not padded[..., 3, :].any() and not padded[..., 3].any()
        return [padded]

    InputRequirements(4, "zeros", black=-1).run(restore, image)


def test_coarse_outputs_keep_their_scale_or_are_enlarged():
    image = torch.rand(1, 3, 6, 9)
    requirements = InputRequirements(4)

    def restore(padded):
        return [F.avg_pool2d(padded, 4), F.avg_pool2d(padded, 2), padded]

    assert [tuple(o.shape[-2:]) for o in requirements.run(restore, image, True)] == [(2, 3), (3, 5), (6, 9)]
    enlarged = requirements.run(restore, image)
    assert [tuple(o.shape[-2:]) for o in enlarged] == [(6, 9)] * 3
    torch.testing.assert_close(enlarged[-1], image)
