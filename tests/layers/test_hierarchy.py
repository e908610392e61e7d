import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sapnet.layers.hierarchy import join, split


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 2]))
def test_join_inverts_split(batch, rows, cols, channels, height_dim):
    shape = [batch, channels, rows * 3, cols * 2] if height_dim == 2 else [batch, rows * 3, cols * 2, channels]
    x = torch.arange(float(torch.tensor(shape).prod())).view(shape)
    assert torch.equal(join(split(x, rows, cols, height_dim), rows, cols, height_dim), x)


def test_order_of_patches_on_the_batch_axis():
    """A wrong order would mix images, because points are drawn per patch and features are joined per image."""
    x = torch.arange(2 * 4 * 6.0).view(2, 1, 4, 6)
    patches = split(x, 2, 3)
    for n in range(2):
        for i in range(2):
            for j in range(3):
                assert torch.equal(patches[(i * 3 + j) * 2 + n], x[n, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2])


def test_unequal_patches_are_refused():
    with pytest.raises(ValueError, match="5x4"):
        split(torch.zeros(1, 1, 5, 4), 2, 2)
    with pytest.raises(ValueError, match="batch of 3"):
        join(torch.zeros(3, 1, 2, 2), 2, 2)
