"""The generators of DeblurGAN-v2 (Kupyn et al., ICCV 2019)."""

from sapnet.models.deblurgan_v2.inception import InceptionPyramid
from sapnet.models.deblurgan_v2.mobilenet import MobileNetPyramid
from sapnet.models.deblurgan_v2.network import DeblurGANv2

__all__ = ["DeblurGANv2", "InceptionPyramid", "MobileNetPyramid"]
