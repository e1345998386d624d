"""What a reader with a minute, or with a phone, sees of each page, measured on the built site."""

import re
from pathlib import Path

import pytest

from tools import picture

SITE = Path(__file__).parents[2] / "_build" / "html"
PAGES = sorted(p.stem for p in SITE.glob("book/*.html"))
CHAPTERS = [name for name in PAGES if re.match(r"\d\d-", name)]
ANSWERED = ["index", *CHAPTERS, "authors-files", "cost"]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}  # CSS pixels
SMALLEST = 11  # CSS pixels of text in a figure on a phone

pytestmark = pytest.mark.browser

# What stands on the page without opening anything: where the answer and the first figure end, in screens; what is wider
# than the box that shows it; cells that say that nothing was run; the width of each figure.
LOOK = """() => {
  const seen = (selector) => Array.from(document.querySelectorAll(selector)).filter((n) => n.checkVisibility());
  const screens = (n) => n ? (n.getBoundingClientRect().bottom + scrollY) / innerHeight : null;
  const wide = (selector) => seen(selector).filter((n) => n.scrollWidth > n.clientWidth + 1 ||
    n.getBoundingClientRect().right > innerWidth).map((n) => n.textContent.trim().slice(0, 60));
  const drawings = seen("article :is(.cell_output, figure) :is(img, svg[role=img])");
  return {
    answer: screens(seen("article .tag_answer > .cell_output")[0]),
    figure: screens(drawings[0]),
    code: wide("article pre"),
    equations: wide("article :is(div.math, mjx-container[display])"),
    tables: wide("article table"),
    missing: seen("article td").filter((n) => /^not run/.test(n.textContent.trim())).length,
    figures: drawings.filter((n) => n.src).map((n) => [n.getAttribute("src"), n.getBoundingClientRect().width]),
  };
}"""


@pytest.fixture(scope="module")
def look(browser, bases):
    """Return what is seen of a page at both sizes; each page is opened once."""
    page, known = browser.new_page(viewport=DESKTOP, reduced_motion="reduce"), {}

    def seen(name):
        if name not in known:
            page.set_viewport_size(DESKTOP)
            page.goto(f"{bases['http']}/book/{name}.html", wait_until="load")
            page.evaluate("async () => { await window.MathJax?.startup?.promise; await document.fonts.ready }")
            known[name] = {"desktop": page.evaluate(LOOK)}
            page.set_viewport_size(PHONE)
            page.wait_for_timeout(50)  # scripts see the new width
            known[name]["phone"] = page.evaluate(LOOK)
        return known[name]

    yield seen
    page.close()


@pytest.mark.parametrize("name", ANSWERED)
def test_the_answer_comes_first(look, name):
    """The answer ends on the first screen of a desktop and on the second of a phone; the first figure on the second."""
    desktop, phone = look(name)["desktop"], look(name)["phone"]
    assert desktop["answer"] and desktop["answer"] <= 1 and phone["answer"] <= 2
    assert desktop["figure"] and desktop["figure"] <= 2 and phone["figure"] <= 2


def test_the_reasons_come_before_the_recipes(look):
    """A reader with a network of their own sees what DCIL gains, in a picture, on the first two screens."""
    desktop, phone = look("your-own-network")["desktop"], look("your-own-network")["phone"]
    assert desktop["figure"] <= 2 and phone["figure"] <= 2


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_out_of_sight(look, name):
    """No line of code is cut off, on any screen; on a phone no equation and no column of a table is."""
    desktop, phone = look(name)["desktop"], look(name)["phone"]
    assert [*desktop["code"], *desktop["equations"]] == []
    assert [*phone["code"], *phone["equations"], *phone["tables"]] == []


@pytest.mark.parametrize("name", PAGES)
def test_no_cell_says_that_nothing_was_run(look, name):
    """What has no run so far is one line that opens, never rows of a table."""
    assert look(name)["desktop"]["missing"] == 0


def smallest_text(drawing):
    """Return the size of the smallest text of a drawing by matplotlib, as a part of the drawing's width."""
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', drawing)[1])
    # Letters are shapes drawn at 100 points, scaled to theirs and turned upside down.
    scales = re.findall(r"<g [^>]*scale\(([\d.]+) -[\d.]+\)", drawing)
    return 100 * min(map(float, scales)) / width


@pytest.mark.parametrize("name", PAGES)
def test_figures_are_legible_on_a_phone(look, name):
    """Every figure of a notebook is a drawing whose text has 11 pixels or more at a phone's width."""
    shown = {src: width for src, width in look(name)["phone"]["figures"] if re.search(r"/[0-9a-f]{64}\.\w+$", src)}
    assert [src for src in shown if not src.endswith(".svg")] == []
    sizes = {src: width * smallest_text((SITE / "book" / src).read_text()) for src, width in shown.items()}
    assert {src: size for src, size in sizes.items() if size < SMALLEST} == {}


def test_the_drawing_of_the_front_page_is_legible_on_a_phone(browser, bases):
    """There its halves stand one above the other, with the same words, in text of 11 pixels or more."""
    page = browser.new_page(viewport=PHONE)
    page.goto(f"{bases['http']}/book/index.html", wait_until="load")
    drawing = page.locator("figure > img[src$='two-passes.svg']")
    file = re.search(r"[\w-]+\.svg", drawing.evaluate("n => getComputedStyle(n).content"))[0]
    wide, narrow = ((SITE / "_static" / name).read_text() for name in ("two-passes.svg", file))
    words = [re.findall(r"[^\s<>]+(?=[^<>]*</text>)", text) for text in (wide, narrow)]
    assert sorted(words[0]) == sorted(words[1])
    box = drawing.bounding_box()
    scale = box["width"] / float(re.search(r'viewBox="0 0 (\d+)', narrow)[1])
    assert scale * min(map(float, re.findall(r'font-size="(\d+)', narrow))) >= SMALLEST
    assert box["height"] > box["width"]  # the page gave it the room of the narrow one
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_scrolls_says_so(browser, bases, theme):
    """An edge behind which a table goes on fades, and no longer once the reader has scrolled there."""
    page = browser.new_page(viewport=DESKTOP, reduced_motion="reduce")
    page.goto(f"{bases['http']}/book/runs.html", wait_until="load")
    page.evaluate("theme => Object.assign(document.documentElement.dataset, {theme, mode: theme})", theme)
    table = page.locator("#runs")
    for place, edge in ((0, "right"), (50, "left right"), (10_000, "left")):
        table.evaluate("(n, place) => { n.scrollLeft = place }", place)
        page.wait_for_function("edge => document.getElementById('runs').dataset.more === edge", arg=edge)
        assert "gradient" in table.evaluate("n => getComputedStyle(n).maskImage")
    page.emulate_media(media="print")
    assert table.evaluate("n => getComputedStyle(n).maskImage") == "none"
    page.close()


def test_a_spread_stays_on_one_line(browser, bases):
    """In a table on a desktop a mean and its spread take two lines at most, even with many columns."""
    page = browser.new_page(viewport=DESKTOP)
    page.goto(f"{bases['http']}/book/04-stability.html", wait_until="load")
    lines = r"""all => all.filter((n) => /\s±\s/.test(n.textContent)).map((n) => {
        const range = document.createRange();
        range.selectNodeContents(n);
        return new Set(Array.from(range.getClientRects(), (r) => r.top)).size;
    })"""
    counts = page.locator("article td:visible").evaluate_all(lines)
    assert len(counts) > 20 and set(counts) <= {1, 2}
    page.close()


def test_rows_are_cards_on_a_phone(browser, bases):
    """Each cell has its column's name, and a screen reader still sees a table, as does everyone on a desktop."""
    page = browser.new_page(viewport=PHONE)
    page.goto(f"{bases['http']}/book/06-cifar.html", wait_until="load")
    table = page.locator("table.cards").first
    names = [name.strip() for name in table.locator("thead th button, thead th:not(:has(button))").all_text_contents()]
    row = table.locator("tbody tr").first
    assert row.locator("td").evaluate_all("all => all.map((n) => n.dataset.label)") == names
    label = "n => getComputedStyle(n, '::before').content"
    assert names[1] in row.locator("td").nth(1).evaluate(label)
    assert page.get_by_role("table").first.get_by_role("cell").count() > 0
    page.set_viewport_size(DESKTOP)
    assert row.locator("td").nth(1).evaluate(label) in ("none", "normal")
    assert row.evaluate("n => getComputedStyle(n).display") == "table-row"
    page.close()


def test_what_the_picture_of_the_site_shows_is_there(watched):
    """README's picture is taken of parts of the front page, each of which is on it."""
    page, _ = watched("book/index.html")
    assert [top for *_, top in picture.VIEWS if not page.locator(top).count()] == []
