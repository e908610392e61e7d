"""Synthetic data set: procedural dynamic scenes with the true extent of their blur, rendered on the fly."""

from sapnet.data.synthetic.dataset import SyntheticScenes
from sapnet.data.synthetic.layout import read_extent, write_gopro_layout

__all__ = ["SyntheticScenes", "read_extent", "write_gopro_layout"]
