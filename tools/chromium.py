"""The system's Chromium without a window, for the tests of the site, its picture and its print."""

import contextlib
import os
from pathlib import Path

PATH = Path(os.environ.get("DCIL_CHROMIUM", "/usr/bin/chromium"))


@contextlib.contextmanager
def headless():
    """Give the browser; it is closed at the end."""
    from playwright.sync_api import sync_playwright  # a test that needs no browser needs no playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PATH, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
