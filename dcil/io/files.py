"""Files: written atomically; read up to a size limit, and only if they are regular files."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dcil.errors import DcilError

ABANDONED_S = 24 * 3600  # a part not written to for so long was left by a killed process


def expanded(path: str | Path) -> Path:
    """Return a path with a leading `~` or `~user` expanded; raises `DcilError` if there is no such home folder.

    A shell expands only words that begin with `~`, not `--runs-dir=~/runs`, nor paths in Python or in a variable.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DcilError(f"{path}: {str(error).lower().rstrip('.')}; write the whole path") from error


def write_atomically(
    path: Path, write: Callable[[Path], object], replace: Callable[[str, Path], None] = os.replace
) -> None:
    """Let `write` fill a file beside `path`, flush it to disk and let `replace` rename it into place.

    Whatever goes wrong, `path` has either its old content or all of the new. Parts of this file that earlier
    processes left behind are removed. An `OSError` names `path`, never the part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_parts(path.parent, glob.escape(path.name), ABANDONED_S)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        part.touch(exist_ok=False)  # with permissions by the umask; mkstemp's files would be private
        write(part)
        with open(part, "r+b") as file:  # Windows flushes only what was opened for writing
            os.fsync(file.fileno())
        replace(str(part), path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # it was not even made, or the disk has gone
            part.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(part)):  # None, e.g. when the disk is full
            error.filename, error.filename2 = str(path), None
        raise


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text as UTF-8 by `write_atomically`."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def remove_parts(folder: Path, name: str = "*", older_s: float = 0.0) -> None:
    """Remove parts that killed writers left in a folder, of files matching `name`, at least `older_s` seconds old."""
    for part in folder.glob(f".{name}.*.part"):
        with contextlib.suppress(OSError):  # another process removed it, or another user owns it
            if time.time() - part.stat().st_mtime >= older_s:
                part.unlink()


@contextlib.contextmanager
def open_regular(path: str | Path) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading; raises `DcilError` for a folder, and for a FIFO or device, which could block.

    The `OSError` of a missing or unreadable file passes through.
    """
    without_waiting = getattr(os, "O_NONBLOCK", 0)
    if os.path.isdir(path):
        raise DcilError(f"{path} is a folder; a file is needed here")
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | without_waiting)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DcilError(f"{path} is not a regular file but a pipe or a device; nothing was read from it")
        yield file


def read_bytes(path: str | Path, most: int) -> bytes:
    """Return a regular file's bytes; raises `DcilError` if there are more than `most`, without reading on."""
    with open_regular(path) as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise DcilError(f"{path} has more than {most / 2**20:g} MiB, which no such file needs; it was not read")
    return raw


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
