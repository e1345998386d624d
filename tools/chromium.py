"""The system's headless Chromium, for browser tests, README's picture and the printed book."""

import contextlib

from dcil.lab.page.paper import CHROMIUM


@contextlib.contextmanager
def headless():
    """Yield a headless browser, and close it afterwards."""
    from playwright.sync_api import sync_playwright  # a test that needs no browser needs no playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
