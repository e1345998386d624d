"""Image files: each decoded once before training, so that no bad file ends it later, and kept so if there is room."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from dcil.checkpoint import write_atomically
from dcil.errors import DcilError

BATCH = 256  # images decoded and waiting to be written


class Store(NamedTuple):
    """Where decoded images are kept, and how much may be: `limit_gib` 0 keeps none."""

    folder: Path
    limit_gib: float = 10.0


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Open an image with Pillow; raises `DcilError` naming the file for whatever goes wrong with it in the block."""
    from PIL import Image  # here: nothing else of dcil needs it

    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what damaged bytes raise
        raise DcilError(f"{path} cannot be read as an image ({error}); mend or remove it") from error


def decode(path: str) -> tuple[np.ndarray, str]:
    """Return an image as uint8 [H, W, 3], and the mode it had; greys, palettes and CMYK become RGB.

    Raises `DcilError` naming the file when it cannot be read whole, or has more than eight bits a channel.
    """
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would clip them: white, or black
            raise ValueError(f"Pillow's mode {image.mode!r} has more than 8 bits a channel, and which values are black "
                             "and white is not known; save it with 8 bits")  # fmt: skip
        return np.asarray(image.convert("RGB")), image.mode


def size_of(path: str) -> tuple[int, int]:
    """Return an image's (height, width), from its first bytes alone."""
    with _opened(path) as image:
        return image.height, image.width


def look_through(files: list[str], key: str, store: Store | None) -> tuple[np.ndarray, Path | None]:
    """Decode every file, once in a store's life; returns the sizes [N, 2] and the decoded copy, if it fits the store.

    `key` stands for these very files: what was found is kept under it. Raises `DcilError` naming the
    first file that cannot be read; then nothing is kept.
    """
    if store is None:
        return _decode_all(files, None), None
    sizes_file, pixels_file = store.folder / f"{key}.sizes.npy", store.folder / f"{key}.pixels"
    try:
        if sizes_file.exists():
            sizes = _load(sizes_file)
            if not fits(sizes, store):
                return sizes, None
            if pixels_file.exists() and pixels_file.stat().st_size == 3 * sizes.prod(1, dtype=np.int64).sum():
                return sizes, pixels_file
        with ThreadPoolExecutor() as pool:
            keep = fits(np.array(list(pool.map(size_of, files))), store)
        found: list[np.ndarray] = []
        if keep:
            write_atomically(pixels_file, lambda part: found.append(_decode_all(files, part)))
        else:
            found.append(_decode_all(files, None))
        write_atomically(sizes_file, lambda part: _save(part, found[0]))
    except OSError as error:
        raise DcilError(f"decoded images could not be kept in {store.folder}: {error.strerror}. Make room, or read the "
                        "originals at every epoch with --decoded-gib 0") from error  # fmt: skip
    return found[0], pixels_file if keep else None


def _decode_all(files: list[str], into: Path | None) -> np.ndarray:
    """Decode every file, append the pixels to the file `into` if given, and return the sizes [N, 2]."""
    sizes, modes = np.zeros((len(files), 2), dtype=np.int32), Counter[str]()
    with ThreadPoolExecutor() as pool, open(into or os.devnull, "wb") as out:
        for start in tqdm(range(0, len(files), BATCH), "decoding images", leave=False, disable=None):
            for i, (pixels, mode) in enumerate(pool.map(decode, files[start : start + BATCH]), start):
                sizes[i] = pixels.shape[:2]
                modes[mode] += 1
                out.write(pixels)
    if odd := {mode: n for mode, n in modes.items() if mode != "RGB"}:
        print(f"dcil: {sum(odd.values())} of {len(files)} images are not RGB and were converted: "
              f"{', '.join(f'{mode} {n}' for mode, n in odd.items())}", file=sys.stderr)  # fmt: skip
    return sizes


def _load(sizes_file: Path) -> np.ndarray:
    try:
        return np.load(sizes_file)
    except (ValueError, EOFError) as error:
        raise DcilError(f"{sizes_file} cannot be read ({error}) and was left as it is. It holds the sizes of images "
                        "that were decoded: move it away, and it is made anew") from error  # fmt: skip


def _save(part: Path, sizes: np.ndarray) -> None:
    with part.open("wb") as file:  # np.save would add a suffix to the name
        np.save(file, sizes)


def fits(sizes: np.ndarray, store: Store) -> bool:
    """Return whether images of these sizes [N, 2] fit the store when decoded."""
    return 3 * sizes.prod(1, dtype=np.int64).sum() <= store.limit_gib * 2**30
