"""Image files: each is decoded once before training, so that no bad file ends a run later, and cached if it fits."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout  # comes with PyTorch
from tqdm import tqdm

from dcil.errors import DcilError, reason
from dcil.io.files import open_regular, read_bytes, remove_parts, sha256, write_atomically, write_text_atomically
from dcil.io.messages import say

# The formats that are read: torchvision's file extensions. Pillow reads many others, some by starting programs.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
MOST_PIXELS = 2**26  # per image; 201 MB decoded
MOST_ASPECT = 200  # resizing fixes the short side, so the long side determines the memory
AT_ONCE = 2**27  # bytes of decoded images waiting to be written
LOOK_S = 1  # seconds after which a process that waits for another one to decode says so


@dataclass(frozen=True)
class Store:
    """Where decoded images are cached, and up to which size; `limit_gib` 0 caches none."""

    folder: Path
    limit_gib: float = 10.0

    def __post_init__(self):
        if not self.limit_gib >= 0:
            raise DcilError(f"decoded_gib is {self.limit_gib}; it must be a number of GiB, 0 to cache none")

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Lock the store against other processes; partial files left by killed processes are removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=LOOK_S)
        except Timeout:
            say(f"dcil: another process is decoding images into {self.folder}; waiting for it")
            lock.acquire()
        try:
            remove_parts(self.folder)
            yield
        finally:
            lock.release()


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Open an image with Pillow; raises `DcilError` naming the file for any error of the image inside the block."""
    from PIL import Image  # imported here: nothing else in dcil needs it

    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
            short, long = sorted(image.size)
            if short * long > MOST_PIXELS or long > MOST_ASPECT * short:
                raise DcilError(
                    f"{path} is an image of {image.width} × {image.height} pixels; images of more than "
                    f"{MOST_PIXELS:,} pixels or an aspect above {MOST_ASPECT} are not read. Shrink it"
                )
            yield image
    except DcilError:
        raise
    except FileNotFoundError as error:
        raise DcilError(f"there is no image {path}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what damaged bytes raise
        raise DcilError(
            f"{path} cannot be read as an image ({reason(error)}); mend or remove it. "
            f"Supported formats: {', '.join(FORMATS)}"
        ) from error


def decode(path: str) -> tuple[np.ndarray, str]:
    """Return an image as uint8 [H, W, 3], and its mode in the file; grey, palette and CMYK images become RGB.

    Raises `DcilError` naming the file when it cannot be read completely, or has more than eight bits per channel.
    """
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would clip them: white, or black
            raise ValueError(
                f"Pillow's mode {image.mode!r} has more than 8 bits per channel, and which values are black "
                "and white is not known; save it with 8 bits"
            )
        return np.asarray(image.convert("RGB")), image.mode


def size_of(path: str) -> tuple[int, int]:
    """Return an image's (height, width), from its header alone."""
    with _opened(path) as image:
        return image.height, image.width


def look_through(files: list[str], key: str, store: Store | None) -> tuple[np.ndarray, Path | None]:
    """Decode every file, once per store; returns the sizes [N, 2] and the path of the decoded copy, None if too large.

    `key` identifies the files: sizes, pixels and their checksums are stored under it. Raises `DcilError` naming
    the first file that cannot be read; then nothing is stored.
    """
    if store is None:
        _decode_all(files, sizes := _sizes(files), None)
        return sizes, None
    try:
        with store.hold():
            return _kept(files, key, store)
    except OSError as error:
        raise DcilError(
            f"decoded images could not be kept in {store.folder}: {reason(error)}. Make room, or decode the "
            "originals at every epoch with --decoded-gib 0"
        ) from error


def _kept(files: list[str], key: str, store: Store) -> tuple[np.ndarray, Path | None]:
    """Return sizes and decoded copy of these files from the store; create them there if missing."""
    folder = store.folder.absolute()  # the pixels are opened later, possibly from another working directory
    sizes_file, pixels_file, sums_file = (folder / f"{key}.{what}" for what in ("sizes.npy", "pixels", "sha256"))
    if sizes_file.exists():
        sizes, sums = _load(sizes_file), _read_sums(sums_file)
        _compare(sizes_file, sums)
        if not fits(sizes, store):
            return sizes, None
        if pixels_file.exists() and pixels_file.stat().st_size == 3 * sizes.prod(1, dtype=np.int64).sum():
            _compare(pixels_file, sums)
            return sizes, pixels_file
    sizes = _sizes(files)
    keep = fits(sizes, store)
    if keep:
        write_atomically(pixels_file, lambda part: _decode_all(files, sizes, part))
    else:
        _decode_all(files, sizes, None)
    np.save(raw := io.BytesIO(), sizes)
    lines = [f"{hashlib.sha256(raw.getvalue()).hexdigest()}  {sizes_file.name}\n"]  # the format of sha256sum
    if keep:
        lines.append(f"{sha256(pixels_file)}  {pixels_file.name}\n")
    write_text_atomically(sums_file, "".join(lines))
    write_atomically(sizes_file, lambda part: part.write_bytes(raw.getvalue()))  # last: it marks the others as complete
    return sizes, pixels_file if keep else None


def _read_sums(path: Path) -> dict[str, str] | None:
    """Return the checksums of the store's files by name; None, with a warning, if an earlier dcil wrote none."""
    try:
        lines = read_bytes(path, 4096).decode(errors="replace").splitlines()
    except FileNotFoundError:
        say(
            f"dcil: {path.parent} has decoded images without a checksum, which an earlier dcil wrote; damage to them "
            "goes undetected. Remove the folder to have them decoded again"
        )
        return None
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _compare(path: Path, sums: dict[str, str] | None) -> None:
    """Raise `DcilError` for a file that differs from its recorded checksum, if there is one."""
    if sums is not None and sha256(path) != sums.get(path.name):
        raise DcilError(
            f"{path} is damaged: its SHA-256 is not the one recorded. It was left as it is; it holds "
            "decoded images: move it away to have them decoded again"
        )


def _sizes(files: list[str]) -> np.ndarray:
    """Return the (height, width) of every image, [N, 2]."""
    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(size_of, files)), dtype=np.int32).reshape(-1, 2)


def _decode_all(files: list[str], sizes: np.ndarray, into: Path | None) -> None:
    """Decode every file and check its size against `sizes` [N, 2]; with `into`, write all pixels to that file."""
    modes, bar = Counter[str](), tqdm(total=len(files), desc="decoding images", leave=False, disable=None)
    with bar, ThreadPoolExecutor() as pool, open(into or os.devnull, "wb") as out:
        for rows in _groups(3 * sizes.prod(1, dtype=np.int64)):
            for i, (pixels, mode) in zip(rows, pool.map(decode, [files[i] for i in rows]), strict=True):
                if pixels.shape[:2] != tuple(sizes[i]):
                    raise DcilError(f"{files[i]} changed while it was read; try again")
                modes[mode] += 1
                out.write(pixels.data)
                bar.update()
    if odd := {mode: n for mode, n in modes.items() if mode != "RGB"}:
        say(
            f"dcil: {sum(odd.values())} of {len(files)} images are not RGB and were converted: "
            f"{', '.join(f'{mode} {n}' for mode, n in odd.items())}"
        )


def _groups(num_bytes: np.ndarray) -> Iterator[range]:
    """Yield ranges of images that together have at most `AT_ONCE` bytes, or a single image."""
    start, total = 0, 0
    for i, size in enumerate(num_bytes.tolist()):
        if i > start and total + size > AT_ONCE:
            yield range(start, i)
            start, total = i, 0
        total += size
    yield range(start, len(num_bytes))


def _load(sizes_file: Path) -> np.ndarray:
    try:
        return np.load(sizes_file)
    except (ValueError, EOFError) as error:
        raise DcilError(
            f"{sizes_file} cannot be read ({error}) and was left as it is. It holds the sizes of images "
            "that were decoded: move it away to have it made again"
        ) from error


def fits(sizes: np.ndarray, store: Store) -> bool:
    """Return whether images of these sizes [N, 2] fit the store when decoded."""
    return 3 * sizes.prod(1, dtype=np.int64).sum() <= store.limit_gib * 2**30
