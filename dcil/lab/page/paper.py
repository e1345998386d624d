"""HTML pages as PDF, printed by the system's headless Chromium, without network access."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from dcil.errors import DcilError
from dcil.io.files import write_atomically

CHROMIUM = Path(os.environ.get("DCIL_CHROMIUM", "/usr/bin/chromium"))
SECONDS = 120  # time limit; a page takes about two, but the machine may be busy


def print_pdf(page: Path, pdf: Path) -> str:
    """Print an HTML page to PDF, at the paper size that its CSS sets; return "", or the reason why it failed."""
    if not CHROMIUM.exists():
        return f"there is no Chromium at {CHROMIUM}; DCIL_CHROMIUM names another place"

    def printed(part: Path) -> None:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--print-to-pdf={part}"]
        with tempfile.TemporaryDirectory() as profile:  # Chromium prints nothing if its profile is in use
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
    """Return the number of pages of a PDF written by Chromium."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))
