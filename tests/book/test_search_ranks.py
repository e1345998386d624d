"""The site's search, used in a browser: what readers ask leads to the page that answers it."""

import urllib.parse
from pathlib import Path

import pytest

from dcil.lab.book import search

ASKED = search.read_phrases(Path(__file__).parents[2] / "book" / "search.yml")

pytestmark = pytest.mark.browser


@pytest.fixture
def hits(watched):
    """Return a function that gives the addresses found for a phrase, best first; nothing may go wrong."""

    def typed(phrase, scheme):
        page, problems = watched(f"search.html?q={urllib.parse.quote_plus(phrase)}", scheme)
        page.wait_for_function("document.querySelector('.search-summary')?.innerText", timeout=15000)
        assert problems == []
        return page.locator("#search-results li > a").evaluate_all("all => all.map(a => a.getAttribute('href'))")

    return typed


@pytest.mark.parametrize("phrase", ASKED)
def test_first_hit_answers(hits, phrase):
    """Every phrase of book/search.yml leads to its page, at its place, before all else; without a server too."""
    page, place = ASKED[phrase]
    assert hits(phrase, "file")[0] == f"{page}.html" + (f"#{place}" if place else "")


@pytest.mark.parametrize(
    "phrase, first",
    [
        ("refined gradient", "book/02-refined-gradient.html"),
        ("STE", "book/02-refined-gradient.html#def-update"),
        ("sparsity schedule", "book/01-why-prune-dynamically.html#equation-eq-cubic"),
        ("how to run on my model", "book/your-own-network.html"),
        ("prune my own network", "book/your-own-network.html"),
        ("rivals", "book/09-rivals.html"),  # no phrase: a word of a title
        ("set_masks", "book/api/index.html#dcil.set_masks"),  # a function by its name
    ],
)
def test_titles_and_keywords_come_before_the_library(hits, phrase, first):
    """On the published site a function comes first only if its whole name was typed."""
    assert hits(phrase, "http")[0] == first


def test_the_order_of_words_says_nothing(hits):
    """A page is found by the words of a phrase that it answers, although its own text lacks one."""
    assert "book/your-own-network.html" in hits("my model: how run", "file")
