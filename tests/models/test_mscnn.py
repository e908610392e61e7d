"""MSCNN: its image pyramid and the scales that are supervised."""

import numpy as np
import pytest
import torch
from skimage.transform import pyramid_gaussian

from sapnet.models.mscnn import MSCNN


@pytest.mark.parametrize("size", [(4, 4), (24, 8), (12, 40)])
def test_the_pyramid_equals_that_of_scikit_image(size):
    """The authors compute theirs with this function."""
    network, inputs = MSCNN(width=1, blocks=0).double(), []
    for scale in network.body_models:
        scale.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0][0, :3]))
    image = torch.rand(1, 3, *size, dtype=torch.float64) * 255
    with torch.no_grad():
        network.restore(image)
    expected = pyramid_gaussian(image[0].permute(1, 2, 0).numpy(), max_layer=2, channel_axis=-1, preserve_range=True)
    for actual, level in zip(reversed(inputs), expected, strict=True):
        np.testing.assert_allclose(actual.permute(1, 2, 0).numpy() + 127.5, level, rtol=1e-9)


def test_training_returns_the_size_of_each_scale_and_evaluation_that_of_the_image():
    network, image = MSCNN(width=1, blocks=0), torch.rand(1, 3, 32, 16)
    assert [tuple(output.shape[-2:]) for output in network.train()(image)] == [(8, 4), (16, 8), (32, 16)]
    assert [tuple(output.shape[-2:]) for output in network.eval()(image)] == [(32, 16)] * 3
