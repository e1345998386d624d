"""What is known of a data set before it is read: a row of `ROWS` in `dcil.data.datasets`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dcil.data.decoding import Store
from dcil.data.vision import import_torchvision
from dcil.errors import DcilError


class Place(NamedTuple):
    """Where data sets lie, whether one that is absent may be fetched, and where decoded images are kept."""

    folder: Path
    download: bool = False
    store: Store | None = None


@dataclass(frozen=True)
class Known:
    """A data set that has a name.

    `read` returns it. `mean` and `std` are per channel, of pixel values in [0, 1]. `side` is that of its images in
    pixels, None for a folder of images of any size. `num_classes` is None where the folder says it. `classes` has
    their names in the order of the labels, `class_of` by their folders. `flip` says whether a mirrored image is still
    its class. `files` has the files' checksums (MD5) by their place, `folders` the names that its folder usually has.
    `comes_with` is the package that brings it along, `fetch` lets torchvision put it into a folder, and `by_hand` is
    what to do there where that fails.
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
    comes_with: str = ""
    fetch: Callable[[str], object] | None = None
    by_hand: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of images of any size."""
        return self.side is None

    def problem(self, found: list[str]) -> str:
        """Return in words what is wrong with the folders of classes found, or nothing."""
        if self.num_classes is not None and len(found) != self.num_classes:
            return f"it has {len(found)} classes, expected {self.num_classes}"
        odd = sorted(set(found) - set(self.class_of)) if self.class_of else []
        return f"it has the class {odd[0]}" if odd else ""

    def download(self, folder: Path) -> None:
        """Fetch it into a folder; raises `DcilError` where that fails."""
        assert self.fetch is not None
        try:
            self.fetch(str(folder))
        except (OSError, RuntimeError) as error:
            raise DcilError(
                f"{self.name} could not be fetched into {folder.resolve()}: {error}. Try again, or {self.by_hand} "
                "there by hand"
            ) from error


def from_torchvision(name: str, **options: Any) -> Callable[[str], object]:
    """Return a function that lets torchvision fetch one of its data sets into a folder."""
    return lambda folder: getattr(import_torchvision().datasets, name)(folder, download=True, **options)
