"""Folders of images as data sets: Imagenette and ImageNet by name, and any folder of one's own."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dcil.data.decoding import Store, decode, look_through
from dcil.data.vision import import_torchvision
from dcil.errors import DcilError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision has them


class Known(NamedTuple):
    """A data set that comes as a folder: that folder's usual names, how many classes, their names by folder."""

    folders: tuple[str, ...]
    num_classes: int
    names: dict[str, str] = {}

    def problem(self, found: list[str]) -> str:
        """Return in words what is wrong with the classes found, or nothing."""
        if len(found) != self.num_classes:
            return f"it has {len(found)} classes, expected {self.num_classes}"
        odd = sorted(set(found) - set(self.names)) if self.names else []
        return f"it has the class {odd[0]}" if odd else ""


KNOWN = {
    "imagenet": Known(("imagenet",), 1000),
    # github.com/fastai/imagenette
    "imagenette": Known(("imagenette160", "imagenette2-160", "imagenette2-320", "imagenette2"), 10,
                        {"n01440764": "tench", "n02102040": "English springer", "n02979186": "cassette player",
                         "n03000684": "chain saw", "n03028079": "church", "n03394916": "French horn",
                         "n03417042": "garbage truck", "n03425413": "gas pump", "n03445777": "golf ball",
                         "n03888257": "parachute"}),
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """The training or test part: its files, their labels [N] and sizes [N, 2] (height, width), and the decoded copy."""

    files: tuple[str, ...]
    labels: Tensor
    sizes: np.ndarray
    pixels_file: Path | None

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each image's bytes begin in the decoded copy."""
        return np.concatenate(([0], np.cumsum(self.sizes.prod(1, dtype=np.int64) * 3)))

    @cached_property
    def pixels(self) -> np.ndarray | None:
        """The decoded copy, mapped into memory; "c" because PyTorch wants arrays it may write to."""
        return None if self.pixels_file is None else np.memmap(self.pixels_file, np.uint8, "c")

    def image(self, index: int) -> Tensor:
        """Return an image as uint8 [3, H, W]."""
        if self.pixels is None:
            pixels = decode(self.files[index])[0].copy()
        else:
            pixels = self.pixels[self.offsets[index] : self.offsets[index + 1]].reshape(*self.sizes[index], 3)
        return torch.from_numpy(pixels).permute(2, 0, 1)


@dataclass(frozen=True)
class ImageFolder:
    """Images of any size in train/CLASS/ and val/CLASS/, read when they are needed."""

    name: str
    train: Part
    test: Part
    classes: tuple[str, ...]
    digest: str
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def train_labels(self) -> Tensor:
        """Labels of the training part [N]."""
        return self.train.labels

    @property
    def test_labels(self) -> Tensor:
        """Labels of the test part [N]."""
        return self.test.labels

    def checksum(self) -> str:
        """Return the SHA-256 over every file's place and size; ImageNet's 150 GB of content are not read for it."""
        return self.digest


class Contents(NamedTuple):
    """What lies in a folder of images: the classes, by part the files and their labels, and the checksum."""

    classes: list[str]
    parts: dict[str, tuple[list[str], Tensor]]
    digest: str


def listing(root: Path) -> tuple[list[str], list[str], Tensor]:
    """Return the classes, the files and their labels of one part.

    Raises `DcilError` for a class without images and for links that lead in a circle.
    """
    refuse_circles(root)
    try:
        found = import_torchvision().datasets.ImageFolder(str(root))
    except FileNotFoundError as error:
        raise DcilError(f"{root}: {error}") from error
    return found.classes, [path for path, _ in found.samples], torch.tensor(found.targets)


def refuse_circles(root: Path) -> None:
    """Raise `DcilError` for a link below a folder that leads back above where it was met: the walk would not end."""
    for place, folders, _ in os.walk(root, followlinks=True):
        links = [path for name in folders if os.path.islink(path := os.path.join(place, name))]
        met = [os.path.realpath(path) for path in (place, *Path(place).parents)] if links else []
        for link in links:
            target = os.path.realpath(link)
            if any(os.path.commonpath([target, path]) == target for path in met):
                raise DcilError(f"{link} is a link to {target}, where the way to it leads through; remove it")


def contents(folder: Path, name: str = "imagefolder") -> Contents:
    """Look through a folder of train/CLASS/ and val/CLASS/; no image is opened.

    Raises `DcilError` for a part that is missing, a class without images, in one part only or named in no UTF-8.
    """
    classes, parts = {}, {}
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            raise DcilError(
                f"{folder.resolve()} has no folder {part!r}; an image folder holds train/CLASS/*.jpg "
                "and val/CLASS/*.jpg. Give it with --data-dir"
            )
        classes[part], *parts[part] = listing(folder / part)
    if classes["train"] != classes["val"]:
        odd = sorted(set(classes["train"]) ^ set(classes["val"]))
        raise DcilError(f"{folder}: train and val must have the same classes; only one of them has {odd[:5]}")
    if name in KNOWN and (why := KNOWN[name].problem(classes["train"])):
        raise DcilError(f"{folder.resolve()} is not {name}: {why}. For other images: --dataset imagefolder")
    if odd := [place for place in classes["train"] if os.fsencode(place) != place.encode(errors="replace")]:
        raise DcilError(
            f"{folder}: the class {os.fsencode(odd[0])} is not UTF-8; rename its folders, for classes are "
            "named in files that must be"
        )
    whole = hashlib.sha256()
    for files, _ in parts.values():
        lines = "\n".join(f"{os.path.relpath(file, folder)} {os.stat(file).st_size}" for file in files)
        whole.update(lines.encode(errors="surrogateescape"))
    return Contents(classes["train"], parts, whole.hexdigest())


def imagefolder(folder: Path, store: Store | None = None, name: str = "imagefolder") -> ImageFolder:
    """Read a folder of train/CLASS/*.jpg and val/CLASS/*.jpg, every image decoded once to see that it can be.

    Raises `DcilError` as `contents` does, and for an image that cannot be read, naming it.
    """
    found, parts = contents(folder, name), {}
    for part, (files, labels) in found.parts.items():
        stats = [(os.path.relpath(file, folder), os.stat(file)) for file in files]
        lines = "\n".join(f"{place} {stat.st_size} {stat.st_mtime_ns}" for place, stat in stats)
        key = hashlib.sha256(f"{folder.resolve()}\n{lines}".encode(errors="surrogateescape")).hexdigest()[:16]
        parts[part] = Part(tuple(files), labels, *look_through(files, key, store))
    names = KNOWN[name].names if name in KNOWN else {}
    shown = tuple(names.get(place, place) for place in found.classes)
    return ImageFolder(name, parts["train"], parts["val"], shown, found.digest)


def named(name: str, folder: Path, store: Store | None = None, download: bool = False) -> ImageFolder:
    """Read a data set of `KNOWN`; raises `DcilError` as `find` and `imagefolder` do."""
    return imagefolder(find(name, folder, download), store, name)


def find(name: str, folder: Path, download: bool = False) -> Path:
    """Return where a data set of `KNOWN` lies: the folder given, or one of its usual names in there.

    With `download` torchvision fetches Imagenette, the version of 160 px, first. Raises `DcilError` where it is not.
    """
    usual = KNOWN[name].folders
    inside = next((folder / place for place in ("", *usual) if (folder / place / "train").is_dir()), None)
    if inside is None and download and name == "imagenette":
        try:
            import_torchvision().datasets.Imagenette(str(folder), size="160px", download=True)
        except (OSError, RuntimeError) as error:
            raise DcilError(
                f"{name} could not be fetched into {folder.resolve()}: {error}. Try again, or unpack "
                "imagenette2-160.tgz there by hand"
            ) from error
        inside = folder / "imagenette2-160"
    if inside is None:
        fetch = ", or fetch it with --download" if name == "imagenette" else ""
        raise DcilError(
            f"{name} is not in {folder.resolve()}: neither train/ nor {', '.join(f'{f}/' for f in usual)} "
            f"is there. Give its folder with --data-dir or DCIL_DATA{fetch}"
        )
    return inside
