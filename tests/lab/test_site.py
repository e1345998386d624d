"""The site's Sphinx extension: one caption per figure, and the files that come along."""

import types

import pytest
from docutils import nodes
from docutils.utils import new_document

from dcil.lab.book import site
from dcil.lab.checkout import root

PICTURE, BLOCK = {"data": {"image/png": "x"}}, {"data": {"text/html": "y"}}


def test_what_follows_a_picture_gets_a_cell_without_a_caption():
    """It does so only if the cell has a caption and more than the picture; the source stays with the picture."""
    figure = {"id": "a", "source": "draw()", "metadata": {"mystnb": {"figure": {"name": "fig-a"}}}}
    other = {"id": "b", "source": "", "metadata": {}, "outputs": [PICTURE, BLOCK]}
    alone = figure | {"outputs": [PICTURE]}
    words = {"id": "c", "source": "words", "metadata": {}}
    shown = site.split([figure | {"outputs": [PICTURE, BLOCK]}, other, alone, words])
    assert [cell["id"] for cell in shown] == ["a", "a-source", "b", "a", "c"]
    assert shown[0]["outputs"] == [PICTURE] and shown[1]["outputs"] == [BLOCK]
    assert shown[1]["metadata"] == {"tags": ["remove-input"]} and shown[2:] == [other, alone, words]


def page_of(words, name):
    """Return the texts of a page of so many words after the extension has seen it."""
    minutes = int(round(words / 200))  # MyST's own reckoning
    env = types.SimpleNamespace(docname=name, metadata={name: {"wordcount": {"words": words, "minutes": minutes}}})
    page = new_document(name)
    page += nodes.section("", nodes.title("", "Title"), nodes.paragraph("", "Text"))
    site.tell_reading_time(types.SimpleNamespace(env=env), page)
    return [node.astext() for node in page.children[0].children]


@pytest.mark.parametrize("words, said", [(2851, "14 minutes"), (180, "1 minute"), (40, "1 minute")])
def test_a_chapter_says_how_long_it_takes_to_read(words, said):
    """The reading time stands between its title and its text."""
    assert page_of(words, "book/02-refined-gradient") == ["Title", f"About {said} to read", "Text"]


@pytest.mark.parametrize("name", ["book/index", "book/api/runs", "book/glossary"])
def test_a_page_to_look_things_up_says_no_time(name):
    """Neither does the front page."""
    assert page_of(900, name) == ["Title", "Text"]


@pytest.mark.parametrize(
    "words, kept",
    [
        ("at 90 % sparsity, n = 3.", "at 90_% sparsity, n_=_3."),
        ("87.49 ± 0.35 for 2 × the cost", "87.49 ±_0.35 for 2_× the cost"),
        ("-0.28 (-0.74 to +0.18) points, 3 to 5", "-0.28 (-0.74_to_+0.18) points, 3 to 5"),
        ("then = 3, a modulo 7 %d, n is 3", "then = 3, a modulo 7 %d, n is 3"),
    ],
)
def test_a_number_stays_on_one_line_with_its_unit(words, kept):
    """It does in text; code and formulas stay as they are written."""
    page = new_document("page")
    page += nodes.paragraph("", "", nodes.Text(words), nodes.literal("", words), nodes.math("", words))
    page += nodes.literal_block("", words)
    site.keep_together(None, page)
    shown = [node.astext().replace("\N{NO-BREAK SPACE}", "_") for node in page.findall(nodes.Text)]
    assert shown == [kept, words, words, words]


def test_a_cell_of_a_table_is_text_too():
    """Attributes, and code beside the table, are not."""
    html = '<td title="n = 3"><b>up</b><br>1 ± 2, n = 3</td><pre>n = 3</pre>'
    page = new_document("page")
    page += nodes.raw("", html, format="html")
    site.keep_together(None, page)
    assert page.astext().replace("\N{NO-BREAK SPACE}", "_") == html.replace("1 ± 2, n = 3", "1 ±_2, n_=_3")


def test_only_records_are_published(tmp_path, monkeypatch):
    """Whatever else is in the folder, no page, script or target of a link is published."""
    folder = tmp_path / "records"
    folder.mkdir()
    (tmp_path / "secret.json").write_text("{}")
    for name in ("a.json", "index.html", "a.js", ".htaccess"):
        (folder / name).write_text("{}")
    (folder / "b.json").symlink_to(tmp_path / "secret.json")
    monkeypatch.setattr(site, "root", lambda: tmp_path)
    app = types.SimpleNamespace(outdir=str(tmp_path / "out"), builder=types.SimpleNamespace(format="html"))
    site.copy_files(app, None)
    assert [path.name for path in (tmp_path / "out" / "records").iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "error, kind, copied", [(None, "html", True), (None, "latex", False), (ValueError("no"), "html", False)]
)
def test_records_and_plotly_come_along(tmp_path, error, kind, copied):
    """Every record and the library stand beside the pages, but not after a failed build, nor for print."""
    app = types.SimpleNamespace(outdir=str(tmp_path), builder=types.SimpleNamespace(format=kind))
    site.copy_files(app, error)
    expected = {f"records/{path.name}" for path in (root() / "records").glob("*.json")} | {"plotly/plotly.min.js"}
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert found == (expected if copied else set())
