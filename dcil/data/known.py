"""The properties of a data set that are known before it is read: a row of `ROWS` in `dcil.data.datasets`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dcil.data.decoding import Store
from dcil.data.vision import import_torchvision
from dcil.errors import DcilError

HOW_GIVEN = "--data-dir (in Python and chapters data_dir) or DCIL_DATA"  # the folder of the data sets, in errors


class Place(NamedTuple):
    """The folder of the data sets, whether a missing one may be downloaded, and where decoded images are cached."""

    folder: Path
    download: bool = False
    store: Store | None = None


@dataclass(frozen=True)
class Known:
    """A data set that can be loaded by name.

    `read` loads it. `mean` and `std` are per channel, of pixel values in [0, 1]. `side` is the side of its images in
    pixels, None for a folder of images of any size. `num_classes` is None if the folder determines it. `classes` has
    the class names in the order of the labels, `class_of` by folder name. `flip` says whether a mirrored image still
    belongs to its class. `files` maps the path of each file to its MD5, `folders` has the usual names of its folder.
    `content` is `Dataset.checksum` of its images and labels, "" where they can differ from one preparation to another.
    `comes_with` is the package that contains it, `fetch` downloads it with torchvision into a folder, and `by_hand`
    says what to do by hand where that fails.
    """

    name: str
    read: Callable[[Known, Place], Any]  # a `Dataset` or an `ImageFolder`
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int | None = None
    num_classes: int | None = None
    classes: tuple[str, ...] = ()
    class_of: Mapping[str, str] = field(default_factory=dict)
    flip: bool = True
    files: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    content: str = ""
    comes_with: str = ""
    fetch: Callable[[str], object] | None = None
    by_hand: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of images of any size."""
        return self.side is None

    def problem(self, found: list[str]) -> str:
        """Return what is wrong with the class folders found, or ""."""
        if self.num_classes is not None and len(found) != self.num_classes:
            return f"it has {len(found)} classes, expected {self.num_classes}"
        odd = sorted(set(found) - set(self.class_of)) if self.class_of else []
        return f"it has the class {odd[0]}" if odd else ""

    def download(self, folder: Path) -> None:
        """Download the data set into a folder; raises `DcilError` if that fails."""
        assert self.fetch is not None
        try:
            self.fetch(str(folder))
        except (OSError, RuntimeError) as error:
            raise DcilError(
                f"{self.name} could not be fetched into {folder.resolve()}: {error}. Try again, or {self.by_hand} "
                "there by hand"
            ) from error


def from_torchvision(name: str, **options: Any) -> Callable[[str], object]:
    """Return a function that downloads one of torchvision's data sets into a folder."""
    return lambda folder: getattr(import_torchvision().datasets, name)(folder, download=True, **options)
