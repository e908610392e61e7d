"""Padding to the sizes a network takes, and cropping back."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def pad_to_multiple(image: Float[Tensor, "b c h w"], multiple: int) -> Float[Tensor, "b c h2 w2"]:
    """Pad at the bottom and at the right by repeating the border, up to the next multiple; any size from 1x1 up."""
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def crop_to(image: Float[Tensor, "b c h w"], height: int, width: int) -> Float[Tensor, "b c h2 w2"]:
    """Take the padding of :func:`pad_to_multiple` off again."""
    return image[..., :height, :width]
