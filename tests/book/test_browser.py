"""Every page of the built site in a real browser, at desktop and phone width, in both themes."""

import functools
import http.server
import os
import re
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.glob("book/**/*.html")) if SITE.exists() else []
WIDTHS = {"desktop": 1280, "phone": 390}
# Known noise of the theme, not of a page: sphinx-thebe adds its script twice.
HARMLESS = re.compile("THEBE_JS_URL")

pytestmark = pytest.mark.browser


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def base():
    """The site, served on a free local port."""
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    """Headless Chromium of the system; DCIL_CHROMIUM names another one."""
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as playwright:
        path = os.environ.get("DCIL_CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def watched(chromium, base):
    """Open pages and gather what went wrong: console errors, failed requests, requests to elsewhere."""
    contexts = []

    def visit(page_name, width=1280, theme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        page, problems = context.new_page(), []
        page.on("console", lambda m: problems.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda e: problems.append(f"error: {e}"))
        page.on("requestfailed", lambda r: problems.append(f"failed: {r.url}"))
        page.on("response", lambda r: problems.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.on("request", lambda r: problems.append(f"external: {r.url}")
                if not r.url.startswith((base, "data:", "blob:")) else None)  # fmt: skip
        page.goto(f"{base}/{page_name}", wait_until="networkidle")
        return page, [p for p in problems if not HARMLESS.search(p)]

    yield visit
    for context in contexts:
        context.close()


def test_the_site_has_the_chapters_of_the_contents():
    """Every chapter named in _toc.yml has its page."""
    named = re.findall(r"(?:root|file): (book/\S+)", (ROOT / "_toc.yml").read_text())
    assert [f"{name}.html" for name in named if f"{name}.html" not in PAGES] == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page_name", PAGES)
def test_page(watched, page_name, width):
    """No console error, no failed or external request; pictures with alt text; formulas set; no sideways scroll."""
    page, problems = watched(page_name, WIDTHS[width])
    page.wait_for_function("() => !window.MathJax?.startup || window.MathJax.startup.promise.then(() => true)")
    for image in page.locator("article img").all():
        assert len(image.get_attribute("alt") or "") > 20, image.get_attribute("src")
        image.scroll_into_view_if_needed()
        assert image.evaluate("i => i.decode().then(() => i.naturalWidth)") > 100
    math = page.locator("article .math")
    if math.count():
        page.wait_for_selector("article mjx-container", state="attached")
        assert page.locator("article mjx-merror, article mjx-container [data-mjx-error]").count() == 0
        assert all(node.locator("mjx-container").count() for node in math.all())
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{wide} px wider than the window"
    assert problems == []


@pytest.mark.parametrize("page_name", PAGES)
def test_page_in_the_dark(watched, page_name):
    """In the dark theme, text stands out from its background, and figures keep their white card."""
    page, problems = watched(page_name)
    page.evaluate("document.documentElement.dataset.theme = 'dark'; document.documentElement.dataset.mode = 'dark'")
    light = "c => { const n = c.match(/[0-9.]+/g).map(Number); return (n[0] + n[1] + n[2]) / 3 }"
    colour = page.locator("article p").first.evaluate("p => getComputedStyle(p).color")
    assert page.evaluate(f"({light})('{colour}')") > 150
    for image in page.locator("article img").all():
        card = image.evaluate("i => getComputedStyle(i).backgroundColor")
        assert page.evaluate(f"({light})('{card}')") > 200
    assert problems == []


def test_no_page_is_empty_or_broken(base):
    """No cell left without its output marker, no traceback, no unresolved reference in any page."""
    for name in PAGES:
        text = (SITE / name).read_text()
        assert "Traceback (most recent call last)" not in text, name
        assert "problematic" not in text and "undefined label" not in text, name


def test_search_finds_the_refined_gradient(watched):
    """The site's search lists chapter 2 for its subject."""
    from playwright.sync_api import expect

    page, problems = watched("search.html?q=refined+gradient")
    expect(page.locator("#search-results a[href*='02-refined-gradient']").first).to_be_visible(timeout=15000)
    assert problems == []


def test_links_inside_the_site_lead_somewhere():
    """Every relative link, picture and anchor of every page exists."""
    missing = []
    for name in PAGES:
        text = (SITE / name).read_text()
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:|//|#$", target):
                continue
            path, _, anchor = target.partition("#")
            file = (SITE / name).parent / path.partition("?")[0] if path else SITE / name
            if not file.exists() or anchor and file.suffix == ".html" and f'id="{anchor}"' not in file.read_text():
                missing.append(f"{name}: {target}")
    assert missing == []
