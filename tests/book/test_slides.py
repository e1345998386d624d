"""The page and the slides that the build leaves beside the book, in a browser."""

from pathlib import Path

import pytest

from dcil.lab.page.paper import count_pages

SITE = Path(__file__).parents[2] / "_build" / "html"

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("name, sheets", [("summary", 1), ("slides", 10)])
def test_the_pdf_is_beside_the_page(watched, name, sheets):
    """It has one sheet, or ten, and the page links to it."""
    page, problems = watched(f"{name}.html", "file")
    assert page.locator(f"a[href='{name}.pdf']").count() == 1
    assert count_pages(SITE / f"{name}.pdf") == sheets
    assert problems == []


def test_keys_turn_the_slides(watched):
    """Keys turn on and back, to the end and to the beginning, never beyond."""
    page, problems = watched("slides.html", "file")

    def press(key):
        page.keyboard.press(key)
        tops = page.locator(".slide").evaluate_all("all => all.map(s => Math.abs(s.getBoundingClientRect().top))")
        return tops.index(min(tops))

    keys = (
        "ArrowRight",
        "ArrowDown",
        " ",
        "ArrowLeft",
        "ArrowUp",
        "PageDown",
        "End",
        "ArrowRight",
        "Home",
        "ArrowLeft",
    )
    assert [press(key) for key in keys] == [1, 2, 3, 2, 1, 2, 9, 9, 0, 0]
    assert problems == []


def test_the_front_page_leads_there(watched):
    """It leads to both, and both lead back to the book."""
    page, _ = watched("book/index.html", "file")
    for name in ("summary", "slides"):
        page.locator(f"article a[href='../{name}.html']").click()
        page.wait_for_url(f"**/{name}.html")
        page.locator("a[href='book/index.html']").click()
        page.wait_for_url("**/book/index.html")
