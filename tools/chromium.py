"""The system's Chromium without a window, for the tests of the site, its picture and its print."""

import contextlib

from dcil.lab.page.paper import CHROMIUM


@contextlib.contextmanager
def headless():
    """Give the browser; it is closed at the end."""
    from playwright.sync_api import sync_playwright  # a test that needs no browser needs no playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
