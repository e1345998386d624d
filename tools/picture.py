"""README's picture, from the built site: the front page on a desktop, and its figure on a phone.

python tools/picture.py        # what `make picture` runs, after `make book`
"""

import io
import sys
from pathlib import Path

from PIL import Image

from tools import chromium

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html" / "book" / "index.html"
PICTURE = ROOT / ".github" / "site.webp"
HEIGHT, GAP = 900, 24
VIEWS = ((1280, "light", "h1"), (390, "dark", "article figure"))  # width, theme, element at the top


def view(browser, width, theme, top):
    """Return a screenshot of the front page, scrolled to the element `top`."""
    page = browser.new_page(viewport={"width": width, "height": HEIGHT})
    page.goto(SITE.as_uri(), wait_until="networkidle")
    page.evaluate(f"document.documentElement.dataset.theme = document.documentElement.dataset.mode = '{theme}'")
    if top != "h1":
        page.locator(top).first.evaluate("node => node.scrollIntoView({behavior: 'instant'})")
    page.wait_for_timeout(500)  # until colours have faded in
    return Image.open(io.BytesIO(page.screenshot()))


def main():
    """Write the picture; returns the exit code."""
    if not SITE.exists():
        sys.exit(f"{SITE} is not there; build the site first: make book")
    with chromium.headless() as browser:
        views = [view(browser, *wanted) for wanted in VIEWS]
    card = Image.new("RGB", (sum(v.width for v in views) + GAP * (len(views) + 1), HEIGHT + 2 * GAP), "#dfe3e8")
    left = GAP
    for image in views:
        card.paste(image, (left, GAP))
        left += image.width + GAP
    card.save(PICTURE, quality=70, method=6)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 2**10:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
