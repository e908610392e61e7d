"""The synthetic scenes as a data set."""

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
EXTENT_STEP = 1.0 / 256.0  # of a pixel: what a 16-bit image of the extent can hold


class SceneItem(TypedDict):
    """What an item of `SyntheticScenes` holds."""

    blurred: torch.Tensor
    sharp: torch.Tensor
    extent: torch.Tensor
    name: str


class SyntheticScenes(Dataset):
    """Procedural dynamic scenes with motion and occlusion, blurred by averaging sub-frames.

    An item is a dict of `blurred` and `sharp`, float32 `[3, h, w]` RGB in [0, 1] with the values of 8-bit images;
    `extent`, float32 `[1, h, w]`: the length in pixels (a multiple of 1/256) of the path of the visible surface during
    the exposure; and `name`, such as "train/000012". The sharp image is the middle sub-frame.
    It depends on (seed, split, index, size, gamma, distribution) alone: the splits have random streams of their own,
    textures and motion too.

    Args:
        split: "train", "val" or "test".
        scenes: how many.
        size: height and width in pixels. Objects grow with it; paths have the same lengths in
            pixels at any size, which suit training crops of 64x64.
        seed: another seed, another set of scenes.
        gamma: sub-frames are averaged in linear light under this exponent, as in GoPro's `blur_gamma` (2.2), or as
            they are stored, as in GoPro's `blur` (None). The sharp images are the same.
        distribution: "synthetic": camera and objects move, by 2 to 10 pixels where they do
            (`distributions.CameraAndObjects`); "synthetic_local": a still camera, and moving objects that cover 10% to
            25% of the image (`distributions.LocalMotion`).

    Raises:
        UserError: an argument is out of its range.
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
            raise UserError(f"scenes is {scenes}: ask for at least one synthetic scene")
        if len(size) != 2 or min(size) < 32:
            raise UserError(f"size is {tuple(size)}: give a height and a width of at least 32 pixels")
        if seed < 0:
            raise UserError(f"seed is {seed}: give a whole number from 0 on")
        if gamma is not None and not 1.0 <= gamma <= 4.0:
            raise UserError(f"gamma is {gamma}: give an exponent from 1 to 4, or none to average as stored")
        if distribution not in DISTRIBUTIONS:
            raise UserError(f"distribution is {distribution!r}: choose one of {', '.join(DISTRIBUTIONS)}")
        self.split, self.scenes, self.seed, self.gamma = split, scenes, seed, gamma
        self.distribution = distribution
        self.size = (int(size[0]), int(size[1]))

    def __len__(self) -> int:
        return self.scenes

    def name(self, index: int) -> str:
        """The name of an item without drawing it."""
        return f"{self.split}/{index:06d}"

    def scene(self, index: int) -> Scene:
        """The layers and paths that an item is rendered from."""
        stream = np.random.SeedSequence(self.seed, spawn_key=(SPLITS.index(self.split), index))
        motion, texture = (np.random.default_rng(each) for each in stream.spawn(2))
        return paint(texture, draw_plan(DISTRIBUTIONS[self.distribution], motion, self.size))

    def __getitem__(self, index: int) -> SceneItem:
        if not -self.scenes <= index < self.scenes:
            raise IndexError(f"scene {index} of {self.scenes}")
        index = int(index) % self.scenes
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # a forked worker has no threads of its own, and is one of many
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
