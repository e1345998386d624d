"""The folder that holds the book: its chapters, records and grids."""

from __future__ import annotations

import os
from pathlib import Path

from dcil.errors import DcilError


def root() -> Path:
    """Return the checkout, searched for upwards from DCIL_ROOT if set, then the working directory, then this file."""
    here = [Path(os.environ["DCIL_ROOT"])] if "DCIL_ROOT" in os.environ else []
    for start in (*here, Path.cwd(), Path(__file__)):
        for folder in (start, *start.resolve().parents):
            if (folder / "_toc.yml").exists() and (folder / "book").is_dir():
                return folder.resolve()
    raise DcilError(f"no checkout of the book at or above {Path.cwd()}; set DCIL_ROOT to its folder")
