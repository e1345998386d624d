"""Every page of the built site in a real browser: both widths, both themes, served and opened as a file."""

import contextlib
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
FOUND = (p.relative_to(SITE) for p in SITE.rglob("*.html")) if SITE.exists() else ()
# index.html only leads to book/index.html; under _static there are parts of the theme.
PAGES = sorted(p.as_posix() for p in FOUND if p.parts[0] not in ("_static", "index.html"))
FIGURES = "article :is(.cell_output, figure) img"
WIDTHS = (1280, 390)  # desktop, phone: CSS pixels
LARGEST = 1_000_000  # bytes that a page may ask for until it is shown; pictures further down come when they are near
ALIKE = tuple(p for p in PAGES if p.startswith("_modules/"))[1:]  # sources of the library: one stands for all
# The library's pages have one set of colours, and thousands of coloured words: one page stands for all in contrast.
PAINTED_ALIKE = ("genindex.html", *(p for p in PAGES if p.startswith("book/api/") and "mathematics" not in p))
# The rules of axe that depend on the theme, and on the width: checked again after each change.
THEMED, SIZED = ["color-contrast"], ["scrollable-region-focusable"]

pytestmark = pytest.mark.browser


def choose(page, theme):
    """Choose the theme, without waiting for colours to fade."""
    page.add_style_tag(content="* { transition: none !important; }")
    page.evaluate("t => Object.assign(document.documentElement.dataset, {theme: t, mode: t})", theme)


def unfit(page):
    """Return the pixels by which the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def violations(page, rules=None, within="html", without=()):
    """Return what axe finds serious or critical in a part of a page, as `rule: element`."""
    from axe_playwright_python.sync_playwright import Axe

    options = {
        "resultTypes": ["violations"],
        "preload": False,
        "runOnly": rules or ["wcag2a", "wcag2aa", "wcag21aa"],
        "rules": {rule: {"enabled": False} for rule in without},
    }
    where = {"include": [[within]], "exclude": [["mjx-container"]]}
    found = Axe().run(page, context=where, options=options).response["violations"]
    return [
        f"{v['id']}: {node['html'][:120]}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


def test_the_site_has_the_chapters_of_the_contents():
    """Every chapter named in _toc.yml has its page."""
    named = re.findall(r"(?:root|file): (book/\S+)", (ROOT / "_toc.yml").read_text())
    assert [f"{name}.html" for name in named if f"{name}.html" not in PAGES] == []


@pytest.mark.parametrize("name", [p for p in PAGES if p not in ALIKE])
def test_page(watched, name):
    """A page is light, without errors, outside requests, sideways scroll or serious findings of axe, in any theme."""
    page, problems = watched(name)
    size = page.evaluate(
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".reduce((sum, e) => sum + e.transferSize, 0)"
    )
    assert size <= LARGEST, f"{size:,} bytes"
    alike = name in PAINTED_ALIKE
    found = violations(page, without=THEMED if alike else ())
    choose(page, "dark")
    found += [] if alike else violations(page, THEMED)
    page.set_viewport_size({"width": 390, "height": 900})
    page.wait_for_timeout(50)  # scripts see the new width
    found += violations(page, SIZED)
    assert (found, unfit(page), problems) == ([], 0, [])


@pytest.mark.parametrize("name", PAGES)
def test_page_opened_as_a_file(watched, name):
    """Without a server, formulas are set, pictures have alt text and a white card in the dark, and nothing fails."""
    page, problems = watched(name, "file")
    assert page.locator("article mjx-merror, article mjx-container [data-mjx-error]").count() == 0
    bare = "nodes => nodes.filter(n => !n.querySelector('mjx-container')).map(n => n.textContent)"
    assert page.locator("article .math").evaluate_all(bare) == []
    assert page.locator(FIGURES).evaluate_all("all => all.filter(i => i.alt.length <= 20).map(i => i.src)") == []
    load = "async i => { i.loading = 'eager'; await i.decode(); return i.naturalWidth }"
    assert all(image.evaluate(load) > 100 for image in page.locator(FIGURES).all())
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for theme in ("light", "dark"):
            choose(page, theme)
            assert unfit(page) == 0, f"{width} px, {theme}"
    grey = "n => getComputedStyle(n)[key].match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => +a + +b) / 3"
    assert page.locator("main").first.evaluate(grey.replace("key", "'color'")) > 150
    cards = page.locator(FIGURES).evaluate_all(f"all => all.map({grey.replace('key', repr('backgroundColor'))})")
    assert all(card > 200 for card in cards)
    assert problems == []


def test_no_page_is_empty_or_broken():
    """No cell that failed and no unresolved reference in any page; docstrings may show errors."""
    for name in PAGES:
        text = (SITE / name).read_text()
        assert not re.search(r'class="[^"]*output traceback', text), name
        assert "Traceback (most recent call last)" not in text or name.startswith(("book/api/", "_modules/")), name
        assert "problematic" not in text and "undefined label" not in text, name


def test_the_zip_needs_no_server(browser, tmp_path, would_run):
    """What `make offline` packs opens from where it is unpacked, and finds a word."""
    from playwright.sync_api import expect

    (tmp_path / "_build").mkdir()
    (tmp_path / "_build" / "html").symlink_to(SITE)
    command = would_run("make offline").replace(".venv/bin/python", sys.executable)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    shutil.unpack_archive(tmp_path / "_build" / "dcil-measured.zip", tmp_path / "unpacked")
    with contextlib.closing(browser.new_page()) as page:
        page.goto((tmp_path / "unpacked" / "html" / "index.html").as_uri(), wait_until="load")
        expect(page.locator("article h1")).to_be_visible()
        page.goto(f"{(tmp_path / 'unpacked' / 'html' / 'search.html').as_uri()}?q=refined+gradient")
        expect(page.locator("#search-results a[href*='02-refined-gradient']").first).to_be_visible(timeout=15000)


def test_links_inside_the_site_lead_somewhere():
    """Every relative link, picture and anchor of every page exists."""
    missing, read = [], functools.cache(Path.read_text)
    for name in (p for p in PAGES if not p.startswith("_modules/")):  # listings of code, in which links may be text
        for target in re.findall(r'(?:href|src)="([^"]+)"', read(SITE / name)):
            if re.match(r"[a-z]+:|//|#$", target):
                continue
            path, _, anchor = target.partition("#")
            file = ((SITE / name).parent / path.partition("?")[0]).resolve() if path else SITE / name
            if not file.exists() or anchor and file.suffix == ".html" and f'id="{anchor}"' not in read(file):
                missing.append(f"{name}: {target}")
    assert missing == []


def test_the_notebook_of_a_page_can_be_downloaded(watched):
    page, _ = watched("book/runs.html")
    address = page.locator(".btn-download-source-button").first.get_attribute("href")
    assert json.loads((SITE / "book" / address).read_text())["nbformat"] == 4


# What only works on a screen. The headings of a table are buttons that sort, and stay.
CONTROLS = "form, input, select, button:not(thead button), .btn, .rerun-box, .provenance :is(.data, .interactive, .csv)"


@pytest.mark.parametrize("name", ["02-refined-gradient", "04-stability", "runs", "your-own-network"])
def test_on_paper_nothing_is_left_to_press(watched, name):
    """Forms, buttons, the bar above and what opens under a figure are for the screen; title and sources stay."""
    page, _ = watched(f"book/{name}.html", "file")
    shown = "all => all.filter(n => n.checkVisibility({visibilityProperty: true})).map(n => n.outerHTML.slice(0, 80))"
    assert page.locator(CONTROLS).evaluate_all(shown) != []
    page.emulate_media(media="print")
    assert page.locator(CONTROLS).evaluate_all(shown) == []
    assert page.locator("h1:visible").count() == 1
    assert page.locator(".provenance summary").first.is_visible()
