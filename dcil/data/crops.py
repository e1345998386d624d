"""The crops with which ImageNet networks are trained and tested: pure functions of tensors and seeds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # for a training crop (Szegedy et al. 2015; torchvision)
LARGEST_SIDE = 4096  # of a crop, in pixels: more than any network here needs, too little to exhaust memory
RESIZE = 256 / 224  # a test image's short side over the side of its central crop


class Crop(NamedTuple):
    """A rectangle of an image, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


def training_crop(seed: int, epoch: int, index: int, size: tuple[int, int]) -> Crop:
    """Draw a crop of 8 to 100 % of an image's area (height, width), aspect 3:4 to 4:3, mirrored or not.

    Takes the first of ten draws that fits, else the largest central crop of an allowed aspect (as torchvision does).
    """
    height, width = size
    draws = np.random.default_rng((seed, epoch, index)).random(2 * TRIES + 3)
    down, right, side = draws[-3:]
    flip = bool(side < 0.5)
    area = height * width * (AREA[0] + draws[:TRIES] * (AREA[1] - AREA[0]))
    ratio = np.exp(math.log(RATIO[0]) + draws[TRIES:-3] * math.log(RATIO[1] / RATIO[0]))
    wide, high = np.rint(np.sqrt(area * ratio)).astype(int), np.rint(np.sqrt(area / ratio)).astype(int)
    fitting = np.flatnonzero((wide >= 1) & (wide <= width) & (high >= 1) & (high <= height))
    if len(fitting):
        h, w = int(high[fitting[0]]), int(wide[fitting[0]])
        return Crop(int(down * (height - h + 1)), int(right * (width - w + 1)), h, w, flip)
    h, w = min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))
    return Crop((height - h) // 2, (width - w) // 2, h, w, flip)


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """Return a uint8 image [C, H, W] resized, bilinear with antialiasing, as Pillow does."""
    return F.interpolate(image[None], size=(height, width), mode="bilinear", antialias=True)[0]


def training_sample(image: Tensor, crop: Crop, side: int) -> Tensor:
    """Return a crop of an image [3, H, W] as [3, side, side]."""
    part = image[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    sample = resized(part, side, side)
    return sample.flip(-1) if crop.flip else sample


def central_sample(image: Tensor, side: int, short: int | None = None) -> Tensor:
    """Resize an image [3, H, W] to the short side `short` (default 256/224 of `side`); return its central square."""
    height, width = image.shape[-2:]
    short = round(side * RESIZE) if short is None else short
    if height <= width:
        image = resized(image, short, int(short * width / height))
    else:
        image = resized(image, int(short * height / width), short)
    top, left = round((image.shape[-2] - side) / 2), round((image.shape[-1] - side) / 2)
    return image[:, top : top + side, left : left + side]
