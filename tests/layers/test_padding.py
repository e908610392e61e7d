import torch
from hypothesis import given
from hypothesis import strategies as st

from sapnet.layers.padding import crop_to, pad_to_multiple


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 8, 16, 32]))
def test_padding_to_a_multiple_and_cropping(height, width, multiple):
    image = torch.rand(1, 3, height, width)
    padded = pad_to_multiple(image, multiple)
    assert padded.shape[2] % multiple == padded.shape[3] % multiple == 0
    assert padded.shape[2] - height < multiple and padded.shape[3] - width < multiple
    assert torch.equal(crop_to(padded, height, width), image)
    assert torch.equal(padded[..., -1, -1], image[..., -1, -1]), "the border is not repeated"
