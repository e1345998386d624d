"""HTML on paper: a page as PDF, printed by the system's Chromium, without a window or a network."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from dcil.errors import DcilError
from dcil.io.files import write_atomically

CHROMIUM = Path(os.environ.get("DCIL_CHROMIUM", "/usr/bin/chromium"))
SECONDS = 120  # a page takes two; a machine may be busy


def print_pdf(page: Path, pdf: Path) -> str:
    """Print a page of HTML, on paper of the size that its style names; return why not, "" where it is printed."""
    if not CHROMIUM.exists():
        return f"there is no Chromium at {CHROMIUM}; DCIL_CHROMIUM names another place"

    def printed(part: Path) -> None:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--print-to-pdf={part}"]
        with tempfile.TemporaryDirectory() as profile:  # in one that is in use it prints nothing
            line = [str(CHROMIUM), *options, f"--user-data-dir={profile}", page.resolve().as_uri()]
            subprocess.run(line, check=True, capture_output=True, timeout=SECONDS)
        if not part.stat().st_size:
            raise DcilError("it wrote nothing")

    try:
        write_atomically(pdf, printed)
    except (DcilError, OSError, subprocess.SubprocessError) as error:
        return f"Chromium did not print {page.name}: {error}"
    return ""


def count_pages(pdf: Path) -> int:
    """Return how many pages a PDF has that Chromium wrote."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))
