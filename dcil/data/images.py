"""Folders of images as data sets: Imagenette and ImageNet by name, and any folder of your own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dcil.data.decoding import decode, look_through
from dcil.data.known import HOW_GIVEN, Known, Place
from dcil.data.vision import import_torchvision
from dcil.errors import DcilError, reason


@dataclass(frozen=True)
class Part:
    """A training or test set: its files, their labels [N] and sizes [N, 2] (height, width), and the decoded copy."""

    files: tuple[str, ...]
    labels: Tensor
    sizes: np.ndarray
    pixels_file: Path | None

    @cached_property
    def offsets(self) -> np.ndarray:
        """Byte offsets [N + 1] of the images in the decoded copy."""
        return np.concatenate(([0], np.cumsum(self.sizes.prod(1, dtype=np.int64) * 3)))

    @cached_property
    def pixels(self) -> np.ndarray | None:
        """The decoded copy, memory-mapped; mode "c" (copy-on-write) because PyTorch wants writable arrays."""
        return None if self.pixels_file is None else np.memmap(self.pixels_file, np.uint8, "c")

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the pixels, which a spawned worker maps from their file anew."""
        return {name: value for name, value in vars(self).items() if name != "pixels"}

    def image(self, index: int) -> Tensor:
        """Return an image as uint8 [3, H, W]."""
        if self.pixels is None:
            pixels = decode(self.files[index])[0].copy()
        else:
            pixels = self.pixels[self.offsets[index] : self.offsets[index + 1]].reshape(*self.sizes[index], 3)
        return torch.from_numpy(pixels).permute(2, 0, 1)


@dataclass(frozen=True)
class ImageFolder:
    """Images of any size in train/CLASS/ and val/CLASS/, read on demand."""

    name: str
    train: Part
    test: Part
    classes: tuple[str, ...]
    digest: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def train_labels(self) -> Tensor:
        """Labels [N] of the training set."""
        return self.train.labels

    @property
    def test_labels(self) -> Tensor:
        """Labels [N] of the test set."""
        return self.test.labels

    def checksum(self) -> str:
        """Return the SHA-256 over every file's relative path and size; contents (150 GB for ImageNet) are not read."""
        return self.digest


class Contents(NamedTuple):
    """The contents of a folder of images: the classes, files and labels by part ("train", "val"), and the checksum."""

    classes: list[str]
    parts: dict[str, tuple[list[str], Tensor]]
    digest: str


def listing(root: Path) -> tuple[list[str], list[str], Tensor]:
    """Return the classes, the files and their labels of one part.

    Raises `DcilError` for a class without images and for circular links.
    """
    refuse_circles(root)
    try:
        found = import_torchvision().datasets.ImageFolder(str(root))
    except FileNotFoundError as error:
        raise DcilError(
            f"{root}: {str(error).rstrip('.')}. Each class is a folder of at least one image, {root.name}/CLASS/*.jpg; "
            "add one, or remove the folder"
        ) from error
    return found.classes, [path for path, _ in found.samples], torch.tensor(found.targets)


def stats_of(files: Sequence[str]) -> list[os.stat_result]:
    """Return `os.stat` of each file; raises `DcilError` for a dangling link or a file that cannot be accessed."""
    found = []
    for file in files:
        try:
            found.append(os.stat(file))
        except OSError as error:
            what = f"is a link to {os.readlink(file)}, which is" if os.path.islink(file) else "is"
            raise DcilError(f"{file} {what} out of reach ({reason(error)}); mend or remove it") from error
    return found


def refuse_circles(root: Path) -> None:
    """Raise `DcilError` for a link to one of its own parent folders: walking the tree would not end."""
    for place, folders, _ in os.walk(root, followlinks=True):
        links = [path for name in folders if os.path.islink(path := os.path.join(place, name))]
        met = [os.path.realpath(path) for path in (Path(place), *Path(place).parents)] if links else []
        for link in links:
            target = os.path.realpath(link)
            if any(os.path.commonpath([target, path]) == target for path in met):
                raise DcilError(f"{link} is a link to {target}, one of its own parent folders; remove it")


def contents(known: Known, folder: Path) -> Contents:
    """List a folder of train/CLASS/ and val/CLASS/; no image is opened.

    Raises `DcilError` for a missing part and for a class without images, in one part only or with a name that is not
    UTF-8.
    """
    classes: dict[str, list[str]] = {}
    parts: dict[str, tuple[list[str], Tensor]] = {}
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            raise DcilError(
                f"{folder.resolve()} has no folder {part!r}; an image folder holds train/CLASS/*.jpg "
                "and val/CLASS/*.jpg. Give it with --data-dir"
            )
        classes[part], files, labels = listing(folder / part)
        parts[part] = files, labels
    if classes["train"] != classes["val"]:
        odd = sorted(set(classes["train"]) ^ set(classes["val"]))
        raise DcilError(f"{folder}: train and val must have the same classes; only one of them has {odd[:5]}")
    if why := known.problem(classes["train"]):
        raise DcilError(f"{folder.resolve()} is not {known.name}: {why}. For other images: --dataset imagefolder")
    if odd := [place for place in classes["train"] if os.fsencode(place) != place.encode(errors="replace")]:
        raise DcilError(
            f"{folder}: the class {os.fsencode(odd[0])!r} is not UTF-8; rename its folders, for class names are "
            "written to files that must be UTF-8"
        )
    whole = hashlib.sha256()
    for files, _ in parts.values():
        sizes = (stat.st_size for stat in stats_of(files))
        lines = "\n".join(f"{os.path.relpath(file, folder)} {size}" for file, size in zip(files, sizes, strict=True))
        whole.update(lines.encode(errors="surrogateescape"))
    return Contents(classes["train"], parts, whole.hexdigest())


def read_folder(known: Known, place: Place) -> ImageFolder:
    """Read a folder of train/CLASS/*.jpg and val/CLASS/*.jpg; every image is decoded once to check that it is readable.

    Raises `DcilError` as `find` and `contents` do, and for an image that cannot be read, naming it.
    """
    folder = find(known, place.folder, place.download).absolute()  # the working directory may change later
    found, parts = contents(known, folder), {}
    for part, (files, labels) in found.parts.items():
        paths = (os.path.relpath(file, folder) for file in files)
        stats = zip(paths, stats_of(files), strict=True)
        lines = "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)
        key = hashlib.sha256(f"{folder.resolve()}\n{lines}".encode(errors="surrogateescape")).hexdigest()[:16]
        parts[part] = Part(tuple(files), labels, *look_through(files, key, place.store))
    classes = tuple(known.class_of.get(name, name) for name in found.classes)
    return ImageFolder(known.name, parts["train"], parts["val"], classes, found.digest, known.mean, known.std)


def find(known: Known, folder: Path, download: bool = False) -> Path:
    """Return the path of a folder of images: the given folder, or one of the data set's usual names inside it.

    With `download`, a missing one is fetched first. Raises `DcilError` if there is none.
    """
    if not known.folders:  # any folder will do
        return folder

    def inside() -> Path | None:
        places = (folder / name for name in ("", *known.folders))
        return next((place for place in places if (place / "train").is_dir()), None)

    if inside() is None and download and known.fetch:
        known.download(folder)
    if (place := inside()) is None:
        fetch = ", or fetch it with --download" if known.fetch else ""
        raise DcilError(
            f"{known.name} is not in {folder.resolve()}: neither train/ nor "
            f"{', '.join(f'{name}/' for name in known.folders)} "
            f"is there. Give its folder with {HOW_GIVEN}{fetch}"
        )
    return place
