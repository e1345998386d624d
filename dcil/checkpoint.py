"""Checkpoints of a run: written atomically, checked on reading, loaded without running code."""

from __future__ import annotations

import io
import os
import reprlib
import zipfile
from pathlib import Path
from typing import Any

import torch

from dcil.config import LATER, RunConfig
from dcil.errors import DcilError
from dcil.io.files import open_regular, write_atomically

SCHEMA = 1


class Damaged(DcilError):
    """A checkpoint file that cannot be read: truncated or corrupted."""


def save(path: Path, config: RunConfig, state: dict[str, Any], keep: Path) -> None:
    """Write a checkpoint of the run of a resolved configuration; the checkpoint it replaces is moved to `keep`."""
    raw = torch_bytes({"schema": SCHEMA, "config": config.as_dict(), **state})

    def replace(part: str, path: Path) -> None:
        if path.exists():
            os.replace(path, keep)
        os.replace(part, path)

    write_atomically(path, lambda part: part.write_bytes(raw), replace)


def torch_bytes(content: Any) -> memoryview:
    """Return the bytes that `torch.save` writes; saving to a full disk directly, PyTorch would hide the cause."""
    torch.save(content, buffer := io.BytesIO())
    return buffer.getbuffer()


def read_torch(path: Path) -> Any:
    """Load a file of `torch.save` onto the CPU: checksums are verified, no code runs, compressed files are refused."""
    with open_regular(path) as file:
        if zipfile.is_zipfile(file):  # PyTorch stores checksums but does not compare them
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                    raise zipfile.BadZipFile("it is compressed, which PyTorch never does")
                if sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
                    raise zipfile.BadZipFile("its parts overlap")
                if archive.testzip():
                    raise zipfile.BadZipFile("a checksum differs")
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def load(path: Path, config: RunConfig | None = None) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; with `config`, it must be a checkpoint of that run.

    Raises `DcilError` naming the file, which is left untouched, when it is damaged, of a newer schema
    or of another configuration.
    """
    try:
        content = read_torch(path)
    except FileNotFoundError as error:
        raise DcilError(f"there is no checkpoint {path}") from error
    except DcilError:
        raise
    except Exception as error:  # damaged bytes can make the reader fail in any way
        raise Damaged(
            f"the checkpoint {path} cannot be read ({type(error).__name__}). It was left as it is; "
            "move it away, and start the run again with --no-resume"
        ) from error
    kinds = {"schema": int, "config": dict}
    if not isinstance(content, dict) or not all(isinstance(content.get(k), kind) for k, kind in kinds.items()):
        raise DcilError(f"{path} is not a checkpoint of dcil: it lacks 'schema' or 'config'. It was left as it is")
    if content["schema"] > SCHEMA:
        raise DcilError(
            f"the checkpoint {path} has schema {content['schema']}, this dcil reads up to {SCHEMA}; update dcil"
        )
    if config is None:
        return content
    mine, theirs = config.as_dict(), LATER | content["config"]
    differ = [k for k in mine | theirs if mine.get(k) != theirs.get(k)]
    if differ:
        odd = [f"{k} {reprlib.repr(theirs.get(k))} (expected {mine.get(k)!r})" for k in differ]
        raise DcilError(
            f"the checkpoint {path} is of another run: {', '.join(odd)}. It was left as it is; "
            "move it away or choose another --runs-dir"
        )
    return content


def epochs_done(state: dict[str, Any]) -> float:
    """Return the number of epochs trained up to a checkpoint, including a fraction of the last one."""
    return len(state["curve"]) + state.get("part", {}).get("done", 0.0)
