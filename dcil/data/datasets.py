"""Data sets as uint8 tensors, every file checked."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dcil.data.decoding import Store
from dcil.data.images import KNOWN, ImageFolder, contents, find, imagefolder, named
from dcil.data.vision import import_torchvision
from dcil.errors import DcilError, unknown

# Checksums of the official python versions (cs.toronto.edu/~kriz/cifar.html), as torchvision has them.
CIFAR_FILES = {
    "cifar10": {
        "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
        "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
        "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar100": {
        "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
        "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# The authors use CIFAR-10's figures for CIFAR-100 too.
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
DIGITS_MEAN, DIGITS_STD = (0.305,) * 3, (0.324,) * 3  # of the training part


@dataclass(frozen=True)
class Dataset:
    """Images [N, C, H, W] uint8 and labels [N] int64 of a train and a test part, and how to feed them.

    `mean` and `std` are per channel, of pixel values in [0, 1]; `flip` says whether a mirrored
    image is still its class. Raises `DcilError` for other types and shapes, and labels outside [0, num_classes).
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True
    classes: tuple[str, ...] = ()  # names, where they are known

    def __post_init__(self):
        for part, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if len(images) != len(labels) or not len(images):
                raise DcilError(
                    f"{self.name}, {part}: {len(images)} images and {len(labels)} labels; "
                    "there must be as many of one as of the other, and at least one"
                )
            if images.dtype != torch.uint8 or images.dim() != 4:
                raise DcilError(
                    f"{self.name}, {part}: images are {images.dtype} {list(images.shape)}; they must be "
                    "torch.uint8 [N, C, H, W], from 0 to 255. Of floats in [0, 1]: "
                    "(255 * images).round().to(torch.uint8)"
                )
            if labels.dtype != torch.int64 or labels.dim() != 1:
                raise DcilError(
                    f"{self.name}, {part}: labels are {labels.dtype} {list(labels.shape)}; they must be "
                    "torch.int64 [N], e.g. labels.long()"
                )
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_classes:
                raise DcilError(
                    f"{self.name}, {part}: labels run from {low} to {high}, but the model has "
                    f"{self.num_classes} classes, 0 to {self.num_classes - 1}"
                )

    def checksum(self) -> str:
        """Return the SHA-256 over all images and labels, so that a record says what it was trained on."""
        digest = hashlib.sha256()
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(np.ascontiguousarray(tensor.numpy()))
        return digest.hexdigest()


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Return where data sets lie: the argument, else the variable DCIL_DATA, else ./data, else the checkout's data."""
    given = data_dir or os.environ.get("DCIL_DATA")
    checkout = Path(__file__).resolve().parents[2] / "data"
    if given or not checkout.is_dir() or Path("data").is_dir():
        try:
            return Path(given or "data").expanduser()
        except RuntimeError as error:
            raise DcilError(f"the data folder is {given!r}, but {error}; write the whole path") from error
    return checkout  # so that a chapter started in book/, or anywhere, finds what the checkout has


def digits() -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits, upsampled from 8×8 to 3×32×32; every fifth is for testing."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise DcilError("the digits come with scikit-learn, which is missing: pip install scikit-learn") from error
    small, labels = load_digits(return_X_y=True)
    small = torch.from_numpy(small).float().view(-1, 1, 8, 8) * (255 / 16)
    large = torch.nn.functional.interpolate(small, size=32, mode="bilinear", align_corners=False)
    images, labels = large.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(labels).long()
    test = torch.arange(len(labels)) % 5 == 0
    # A mirrored digit is another sign, so no flip.
    return Dataset(
        "digits",
        images[~test],
        labels[~test],
        images[test],
        labels[test],
        10,
        DIGITS_MEAN,
        DIGITS_STD,
        flip=False,
        classes=tuple("0123456789"),
    )


def _read_cifar(path: Path, md5: str) -> dict:
    raw = path.read_bytes()
    found = hashlib.md5(raw).hexdigest()
    if found != md5:  # also what makes unpickling it safe
        raise DcilError(
            f"{path} is damaged: md5 {found} ({len(raw):,} bytes), expected {md5}. "
            "It was left as it is; move it away and fetch it again, e.g. with --download"
        )
    return pickle.loads(raw, encoding="latin1")


def cifar(name: str, data_dir: str | Path | None = None, download: bool = False) -> Dataset:
    """Read CIFAR-10 or CIFAR-100 from the official python files, every checksum verified.

    With `download`, torchvision fetches what is missing into the folder first.
    """
    folder, files = data_folder(data_dir), CIFAR_FILES[name]
    if download and not all((folder / file).exists() for file in files):
        datasets = import_torchvision().datasets
        try:
            {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name](str(folder), download=True)
        except (OSError, RuntimeError) as error:
            raise DcilError(
                f"{name} could not be fetched into {folder.resolve()}: {error}. Try again, or put the "
                "official python files there by hand"
            ) from error
    missing = [file for file in files if not (folder / file).exists()]
    if missing:
        raise DcilError(
            f"{name} is not in {folder.resolve()}: {missing[0]} is missing. Give its folder with "
            "--data-dir or DCIL_DATA, or fetch it with --download"
        )
    batches = [_read_cifar(folder / file, md5) for file, md5 in files.items()]
    images = torch.from_numpy(np.concatenate([b["data"] for b in batches])).view(-1, 3, 32, 32)
    key, classes = ("labels", 10) if name == "cifar10" else ("fine_labels", 100)
    labels = torch.tensor([label for b in batches for label in b[key]])
    train = len(labels) - len(batches[-1][key])  # the last file is the test set
    return Dataset(
        name,
        images[:train],
        labels[:train],
        images[train:],
        labels[train:],
        classes,
        CIFAR_MEAN,
        CIFAR_STD,
        classes=CIFAR10_CLASSES if name == "cifar10" else (),
    )


def checksum_of_folder(name: str, data_dir: str | Path | None = None) -> str | None:
    """Return the checksum of a folder of images, none of them opened; None for a data set that is one file's content.

    Raises `DcilError` as `load` does, except for unreadable images.
    """
    if name not in (*KNOWN, "imagefolder"):
        return None
    folder = data_folder(data_dir)
    return contents(find(name, folder) if name in KNOWN else folder, name).digest


def load(
    name: str, data_dir: str | Path | None = None, download: bool = False, store: Store | None = None
) -> Dataset | ImageFolder:
    """Load a data set by name; `store` is where decoded images of a folder are kept, by default nowhere.

    Raises `dcil.DcilError` for an unknown name, missing, damaged or unreadable files.

    >>> digits = load("digits")
    >>> digits.train_images.shape, digits.train_images.dtype, digits.num_classes
    (torch.Size([1437, 3, 32, 32]), torch.uint8, 10)
    """
    makers: dict[str, Callable[[], Dataset | ImageFolder]] = {
        "digits": digits,
        "cifar10": lambda: cifar("cifar10", data_dir, download),
        "cifar100": lambda: cifar("cifar100", data_dir, download),
        "imagefolder": lambda: imagefolder(data_folder(data_dir), store),
        "imagenette": lambda: named("imagenette", data_folder(data_dir), store, download),
        "imagenet": lambda: named("imagenet", data_folder(data_dir), store),
    }
    if name not in makers:
        raise unknown("dataset", name, makers)
    return makers[name]()
