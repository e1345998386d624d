"""Templates: what is put into one is escaped once, what one lacks is an error, and none is unused."""

import re

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from dcil.lab import checkout
from dcil.lab.templating import markdown_table, render

FOLDER = checkout.root() / "dcil" / "lab"


def test_text_is_escaped_once_and_html_not_again():
    """This holds in attributes too, and the result of one template goes into another as it is."""
    inner = render("command", text="""<b> & "it's" """)
    assert inner == Markup('<div class="highlight"><pre>&lt;b&gt; &amp; &quot;it&#x27;s&quot; </pre></div>')
    assert render("charts", parts=[inner]) == f'<div class="charts">{inner}</div>'
    assert 'href="runs.html#&quot;&gt;"' in render("run_link", run_id="x", short="x", anchor='">')


def test_what_a_template_lacks_is_an_error():
    """Nobody would notice an empty place in a page."""
    with pytest.raises(UndefinedError, match="'text' is undefined"):
        render("command")


def test_a_bar_stays_in_its_cell():
    """A claim with a bar does not become two cells."""
    assert markdown_table(["a"], [["x|y"]]).splitlines() == ["| a |", "| --- |", "| x\\|y |"]


# Named by the page that is written, and what those two share.
BY_PAGE = {"summary", "slides", "parts"}


def test_every_template_is_rendered():
    """No file is without a caller, and no caller without its file."""
    code = "".join(path.read_text() for path in FOLDER.rglob("*.py"))
    called = set(re.findall(r'\brender\(\s*"(\w+)"', code))
    assert {path.stem for path in (FOLDER / "templates").iterdir()} == called | BY_PAGE
