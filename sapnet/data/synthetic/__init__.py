"""The embedded data set: procedural dynamic scenes with their true blur, drawn on the fly and free of any download."""

from sapnet.data.synthetic.dataset import SyntheticScenes
from sapnet.data.synthetic.layout import read_extent, write_gopro_layout

__all__ = ["SyntheticScenes", "read_extent", "write_gopro_layout"]
