"""What readers search for: phrases to pages, index entries and keywords from them."""

import types

import pytest
from docutils import nodes
from docutils.utils import new_document
from sphinx import addnodes

from dcil.errors import DcilError
from dcil.lab.book import search
from dcil.lab.checkout import root


def app(asked, page="book/a"):
    """Return what Sphinx gives an extension, as far as this one looks."""
    return types.SimpleNamespace(
        config=types.SimpleNamespace(dcil_search=asked), env=types.SimpleNamespace(docname=page, all_docs={"book/a"})
    )


def test_a_page_has_its_phrases_as_index_entries_and_their_words_as_keywords():
    """An entry leads to its place, and what another page answers is not on this one."""
    asked = {"my own model": ("book/a", ""), "own mask": ("book/a", "here"), "else": ("book/b", "")}
    page = new_document("a")
    page += nodes.section(ids=["here"])
    search.on_doctree(app(asked), page)
    entries = [node["entries"] for node in page.findall(addnodes.index)]
    assert entries == [[("single", "my own model", "", "main", None)], [("single", "own mask", "here", "main", None)]]
    assert [(node["name"], node["content"]) for node in page.findall(nodes.meta)] == [
        ("keywords", "mask, model, my, own")
    ]


def test_a_page_that_answers_nothing_stays_as_it_is():
    """It gets neither entries nor keywords."""
    page = new_document("a")
    search.on_doctree(app({"else": ("book/b", "")}), page)
    assert page.children == []


def test_a_place_or_page_that_is_not_there_is_a_warning(caplog):
    """A warning fails the build of the site."""
    gone = {"my phrase": ("book/a", "gone"), "other": ("book/b", "")}
    search.on_doctree(app(gone), new_document("a"))
    search.on_environment(app(gone), app(gone).env)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "no place 'gone'" in caplog.text and "'other' leads to 'book/b', which is no page" in caplog.text


@pytest.mark.parametrize("text", ["- a list", "a: 3", "a: [b]", "a: : b", ""])
def test_a_file_of_another_shape_is_refused(tmp_path, text):
    """The error names the file."""
    (tmp_path / "search.yml").write_text(text)
    with pytest.raises(DcilError, match=r"search\.yml"):
        search.read_phrases(tmp_path / "search.yml")


def test_every_phrase_leads_to_a_page_of_the_book():
    """A chapter that is renamed must take its phrases along."""
    pages = {path.with_suffix("").relative_to(root()).as_posix() for path in (root() / "book").rglob("*.*")}
    assert {page for page, _ in search.read_phrases(root() / "book" / "search.yml").values()} <= pages
