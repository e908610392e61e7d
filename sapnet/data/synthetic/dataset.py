"""Data set of synthetic scenes."""

from typing import TypedDict

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from sapnet.data.synthetic.distributions import DISTRIBUTIONS, draw_plan
from sapnet.data.synthetic.render import expose
from sapnet.data.synthetic.scenes import Scene, paint
from sapnet.errors import UserError

SPLITS = ("train", "val", "test")
EXTENT_STEP = 1.0 / 256.0  # resolution of the extent in pixels, as stored in a 16-bit image


class SceneItem(TypedDict):
    """Item of `SyntheticScenes`."""

    blurred: torch.Tensor
    sharp: torch.Tensor
    extent: torch.Tensor
    name: str


class SyntheticScenes(Dataset):
    """Procedural dynamic scenes with motion and occlusion, blurred by averaging sub-frames.

    An item contains the images `blurred` and `sharp`, float32 `[3, h, w]` in [0, 1] with the values of 8-bit images;
    `extent`, float32 `[1, h, w]`, the length in pixels (a multiple of 1/256) of the path of the visible surface during
    the exposure; and `name`, such as "train/000012". The sharp image is the middle sub-frame. An item depends only on
    (seed, split, index, size, gamma, distribution). Splits, motion and textures have separate random streams.

    Args:
        split: "train", "val" or "test".
        scenes: Number of scenes.
        size: Height and width in pixels. Objects scale with it; the lengths of paths in pixels do not, and suit
            training crops of 64x64.
        seed: Each seed is a different set of scenes.
        gamma: Exponent under which sub-frames are averaged in linear light, as in GoPro's `blur_gamma` (2.2). None
            averages the stored values, as in GoPro's `blur`. It does not change the sharp images.
        distribution: "synthetic": camera and objects move by 2 to 10 pixels (`distributions.CameraAndObjects`);
            "synthetic_local": the camera is still, and moving objects cover 10% to 25% of the image
            (`distributions.LocalMotion`).

    Raises:
        UserError: An argument is out of its range.
    """

    def __init__(
        self,
        split: str,
        scenes: int,
        size: tuple[int, int] = (128, 128),
        seed: int = 0,
        gamma: float | None = 2.2,
        distribution: str = "synthetic",
    ):
        if split not in SPLITS:
            raise UserError(f"synthetic scenes have no split {split!r}: choose one of {', '.join(SPLITS)}")
        if scenes < 1:
            raise UserError(f"scenes is {scenes}: choose at least one")
        if len(size) != 2 or min(size) < 32:
            raise UserError(f"size is {tuple(size)}: choose a height and a width of at least 32 pixels")
        if seed < 0:
            raise UserError(f"seed is {seed}: choose an integer from 0")
        if gamma is not None and not 1.0 <= gamma <= 4.0:
            raise UserError(f"gamma is {gamma}: choose an exponent from 1 to 4, or none to average stored values")
        if distribution not in DISTRIBUTIONS:
            raise UserError(f"distribution is {distribution!r}: choose one of {', '.join(DISTRIBUTIONS)}")
        self.split, self.scenes, self.seed, self.gamma = split, scenes, seed, gamma
        self.distribution = distribution
        self.size = (int(size[0]), int(size[1]))

    def __len__(self) -> int:
        return self.scenes

    def name(self, index: int) -> str:
        """Return the name of an item without rendering it."""
        return f"{self.split}/{index:06d}"

    def scene(self, index: int) -> Scene:
        """Return the layers and paths that an item is rendered from."""
        stream = np.random.SeedSequence(self.seed, spawn_key=(SPLITS.index(self.split), index))
        motion_rng, texture_rng = (np.random.default_rng(each) for each in stream.spawn(2))
        return paint(texture_rng, draw_plan(DISTRIBUTIONS[self.distribution], motion_rng, self.size))

    def __getitem__(self, index: int) -> SceneItem:
        if not -self.scenes <= index < self.scenes:
            raise IndexError(f"scene {index} of {self.scenes}")
        index = int(index) % self.scenes
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # OpenCV's threads do not survive a fork, and the workers share the cores
        shot = expose(self.scene(index), self.gamma)
        extent = np.rint(shot.extent / EXTENT_STEP).clip(0, 65535).astype(np.float32) * np.float32(EXTENT_STEP)
        return SceneItem(
            blurred=_image(shot.blurred),
            sharp=_image(shot.sharp),
            extent=torch.from_numpy(extent)[None],
            name=self.name(index),
        )


def _image(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32, order="C") / np.float32(255.0))
