"""Data sets as uint8 tensors, every file verified."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dcil.data.decoding import Store
from dcil.data.images import ImageFolder, contents, find, read_folder
from dcil.data.known import HOW_GIVEN, Known, Place, from_torchvision
from dcil.errors import DcilError, unknown
from dcil.io.files import expanded
from dcil.io.shapes import Text, problems, unfit


@dataclass(frozen=True)
class Dataset:
    """Images [N, C, H, W] uint8 and labels [N] int64 of a training and a test set, and how to normalise and flip them.

    `mean` and `std` are per channel, of pixel values in [0, 1]; `flip` says whether a mirrored image still belongs
    to its class. Raises `DcilError` for other types and shapes, labels outside [0, num_classes),
    means outside [0, 1], a wrong number of class names, and a name that a record cannot hold.
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
    classes: tuple[str, ...] = ()  # names, if known

    def __post_init__(self):
        if odd := next(iter(problems(self.name, Text())), "") or unfit(self.name):
            raise DcilError(f"the name of a data set is stored in records, but {odd.replace('the file', 'it')}")
        if type(self.num_classes) is not int or self.num_classes < 1:
            raise DcilError(f"{self.name}: num_classes is {self.num_classes!r}; it must be an int of at least 1")
        for scale in ("mean", "std"):
            object.__setattr__(self, scale, self._numbers(scale))
        self._check_part("train", self.train_images, self.train_labels)
        self._check_part("test", self.test_images, self.test_labels)
        if len(self.mean) != len(self.std) or not all(0 < spread < math.inf for spread in self.std):
            raise DcilError(
                f"{self.name}: mean is {self.mean} and std {self.std}; each must have one number per channel, and "
                "those of std must be above 0"
            )
        if not all(0 <= value <= 1 for value in self.mean):
            raise DcilError(
                f"{self.name}: mean is {self.mean}; it must be that of pixel values in [0, 1]. For values from 0 to "
                "255, divide mean and std by 255"
            )
        if self.classes and (len(self.classes) != self.num_classes or not all(type(c) is str for c in self.classes)):
            raise DcilError(
                f"{self.name}: classes is {self.classes!r:.200}; it must have one name (str) for each of the "
                f"{self.num_classes} classes, or be left out"
            )

    def _numbers(self, scale: str) -> tuple[float, ...]:
        value = getattr(self, scale)
        try:
            return tuple(map(float, value))
        except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: from tensors
            raise DcilError(
                f"{self.name}: {scale} is {value!r}; it must have one number per channel, e.g. (0.5, 0.5, 0.5)"
            ) from error

    def _check_part(self, part: str, images: Tensor, labels: Tensor) -> None:
        if not (isinstance(images, Tensor) and isinstance(labels, Tensor)):
            raise DcilError(
                f"{self.name}, {part}: images are a {type(images).__name__} and labels a {type(labels).__name__}; both "
                "must be torch.Tensor, e.g. torch.from_numpy(array) or torch.tensor(values)"
            )
        if len(images) != len(labels) or not len(images):
            raise DcilError(
                f"{self.name}, {part}: {len(images)} images and {len(labels)} labels; "
                "there must be equally many of both, and at least one"
            )
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise DcilError(
                f"{self.name}, {part}: images are {images.dtype} {list(images.shape)}; they must be "
                "torch.uint8 [N, C, H, W], from 0 to 255. For floats in [0, 1]: "
                "(255 * images).round().to(torch.uint8)"
            )
        if images.shape[1] != len(self.mean) or not images.numel():
            raise DcilError(
                f"{self.name}, {part}: images are {list(images.shape)} and mean has {len(self.mean)} numbers; images "
                "must be [N, C, H, W], and mean must have C numbers. For [N, H, W, C]: "
                "images.permute(0, 3, 1, 2)"
            )
        if labels.dtype != torch.int64 or labels.dim() != 1:
            raise DcilError(
                f"{self.name}, {part}: labels are {labels.dtype} {list(labels.shape)}; they must be "
                "torch.int64 [N], e.g. labels.long()"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            raise DcilError(
                f"{self.name}, {part}: labels range from {low} to {high}, but the model has "
                f"{self.num_classes} classes, 0 to {self.num_classes - 1}"
            )

    def checksum(self) -> str:
        """Return the SHA-256 over all images and labels, by which a record identifies its data."""
        digest = hashlib.sha256()
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
        return digest.hexdigest()


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Return the folder of the data sets: the argument, else DCIL_DATA, else ./data, else the checkout's data."""
    given = data_dir or os.environ.get("DCIL_DATA")
    checkout = Path(__file__).resolve().parents[2] / "data"
    if given or not checkout.is_dir() or Path("data").is_dir():
        return expanded(given or "data")
    return checkout  # so that a chapter started in book/, or anywhere, finds the checkout's data


def read_digits(known: Known, place: Place) -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits, upsampled from 8×8 to 3×16×16; every fifth is a test image.

    16×16 is large enough for the three stages of a ResNet, at a quarter of the cost of CIFAR's 32×32.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise DcilError("the digits come with scikit-learn, which is missing: pip install scikit-learn") from error
    small, labels = load_digits(return_X_y=True)
    small = torch.from_numpy(small).float().view(-1, 1, 8, 8) * (255 / 16)
    large = torch.nn.functional.interpolate(small, size=known.side, mode="bilinear", align_corners=False)
    images, labels = large.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(labels).long()
    test = torch.arange(len(labels)) % 5 == 0
    return _dataset(known, images[~test], labels[~test], images[test], labels[test])


def _read_batch(path: Path, md5: str) -> dict:
    raw = path.read_bytes()
    found = hashlib.md5(raw).hexdigest()
    if found != md5:  # this check also makes unpickling safe
        raise DcilError(
            f"{path} is damaged: md5 {found} ({len(raw):,} bytes), expected {md5}. "
            "It was left as it is; move it away and download it again, e.g. with --download"
        )
    return pickle.loads(raw, encoding="latin1")


def read_cifar(known: Known, place: Place) -> Dataset:
    """Read CIFAR-10 or CIFAR-100 from the official Python files, every checksum verified."""
    folder = place.folder
    if place.download and not all((folder / file).exists() for file in known.files):
        known.download(folder)
    if missing := [file for file in known.files if not (folder / file).exists()]:
        here = folder.resolve()
        inside = here.name == Path(missing[0]).parent.name  # the folder of the batches itself was given
        which = f"the folder above it, {here.parent}," if inside else "its folder"
        raise DcilError(
            f"{known.name} is not in {here}: {missing[0]} is missing. Give {which} with "
            f"{HOW_GIVEN}, or fetch it with --download"
        )
    batches = [_read_batch(folder / file, md5) for file, md5 in known.files.items()]
    images = torch.from_numpy(np.concatenate([b["data"] for b in batches])).view(-1, 3, 32, 32)
    key = "labels" if "labels" in batches[0] else "fine_labels"  # of CIFAR-100
    labels = torch.tensor([label for b in batches for label in b[key]])
    train = len(labels) - len(batches[-1][key])  # the last file is the test set
    return _dataset(known, images[:train], labels[:train], images[train:], labels[train:])


def _dataset(known: Known, images: Tensor, labels: Tensor, test_images: Tensor, test_labels: Tensor) -> Dataset:
    """Return a `Dataset` of these images and labels with the properties in `known`."""
    assert known.num_classes is not None
    return Dataset(
        known.name,
        images,
        labels,
        test_images,
        test_labels,
        known.num_classes,
        known.mean,
        known.std,
        known.flip,
        known.classes,
    )


# The authors use CIFAR-10's mean and std for CIFAR-100 too.
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as in torchvision
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# github.com/fastai/imagenette
IMAGENETTE = {"n01440764": "tench", "n02102040": "English springer", "n02979186": "cassette player",
              "n03000684": "chain saw", "n03028079": "church", "n03394916": "French horn",
              "n03417042": "garbage truck", "n03425413": "gas pump", "n03445777": "golf ball",
              "n03888257": "parachute"}  # fmt: skip
# MD5 of the official Python versions (cs.toronto.edu/~kriz/cifar.html), as in torchvision.
CIFAR10_FILES = {
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
}
CIFAR100_FILES = {
    "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
}

ROWS = (
    # mean and std are those of the training set; a mirrored digit is no longer a digit, so no flip.
    Known("digits", read_digits, (0.305,) * 3, (0.319,) * 3, side=16, num_classes=10, classes=tuple("0123456789"),
          flip=False, comes_with="scikit-learn"),
    Known("cifar10", read_cifar, CIFAR_MEAN, CIFAR_STD, side=32, num_classes=10, classes=CIFAR10_CLASSES,
          files=CIFAR10_FILES, content="9048fcbac9c08a64d57a7c5a5a66750a974ad4eab380914df129f7e223d823df",
          fetch=from_torchvision("CIFAR10"), by_hand="put the official python files"),
    Known("cifar100", read_cifar, CIFAR_MEAN, CIFAR_STD, side=32, num_classes=100,
          files=CIFAR100_FILES, content="283e80e15e3841cce98044da5929d8557a88969bfd2d77d1c1db7bb78ba419f7",
          fetch=from_torchvision("CIFAR100"), by_hand="put the official python files"),
    Known("imagenette", read_folder, IMAGENET_MEAN, IMAGENET_STD, num_classes=10, classes=tuple(IMAGENETTE.values()),
          class_of=IMAGENETTE, folders=("imagenette160", "imagenette2-160", "imagenette2-320", "imagenette2"),
          fetch=from_torchvision("Imagenette", size="160px"), by_hand="unpack imagenette2-160.tgz"),
    Known("imagenet", read_folder, IMAGENET_MEAN, IMAGENET_STD, num_classes=1000, folders=("imagenet",)),
    Known("imagefolder", read_folder, IMAGENET_MEAN, IMAGENET_STD),
)  # fmt: skip
#: Every data set by name.
DATASETS: dict[str, Known] = {known.name: known for known in ROWS}


def get(name: str) -> Known:
    """Return the entry of a data set; raises `dcil.DcilError` suggesting the nearest name for an unknown one.

    >>> get("cifar10").num_classes, get("imagenet").is_folder
    (10, True)
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    return DATASETS[name]


def load(
    name: str, data_dir: str | Path | None = None, download: bool = False, store: Store | None = None
) -> Dataset | ImageFolder:
    """Load a data set by name; with `download`, fetch it first if it is missing and can be downloaded.

    `store` is where decoded images of a folder are cached, by default nowhere.
    Raises `dcil.DcilError` for an unknown name and for missing, damaged or unreadable files.

    >>> digits = load("digits")
    >>> digits.train_images.shape, digits.train_images.dtype, digits.num_classes
    (torch.Size([1437, 3, 16, 16]), torch.uint8, 10)
    """
    known = get(name)
    return known.read(known, Place(data_folder(data_dir), download, store))


def digits() -> Dataset:
    """Return scikit-learn's handwritten digits, as `read_digits` does."""
    return read_digits(get("digits"), Place(Path()))


def cifar(name: str, data_dir: str | Path | None = None, download: bool = False) -> Dataset:
    """Return "cifar10" or "cifar100", as `read_cifar` does."""
    return read_cifar(get(name), Place(data_folder(data_dir), download))


def imagefolder(folder: str | Path, store: Store | None = None) -> ImageFolder:
    """Return your own folder of images as a data set, see `dcil.data.images.read_folder`."""
    return read_folder(get("imagefolder"), Place(expanded(folder), store=store))


def checksum_of_folder(name: str, data_dir: str | Path | None = None) -> str | None:
    """Return the checksum of a folder of images without opening any image; None for a data set that is not a folder.

    Raises `DcilError` as `load` does, except for unreadable images.
    """
    known = get(name)
    return contents(known, find(known, data_folder(data_dir))).digest if known.is_folder else None
