"""Padding of images to the sizes that a network supports, and cropping."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def pad_to_multiple(image: Float[Tensor, "b c h w"], multiple: int) -> Float[Tensor, "b c h2 w2"]:
    """Pad the bottom and right with the border values up to the next multiple; any size from 1x1 up."""
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def crop_to(image: Float[Tensor, "b c h w"], height: int, width: int) -> Float[Tensor, "b c h2 w2"]:
    """Crop the padding of `pad_to_multiple`."""
    return image[..., :height, :width]
