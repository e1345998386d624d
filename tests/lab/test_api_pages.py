"""The library's pages show every module, docstrings with links, and the table of settings."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import dcil
from dcil.lab.book import api_pages
from dcil.methods import Phase

ROOT = Path(__file__).parents[2]
PAGES = "\n".join(path.read_text() for path in (ROOT / "book" / "api").glob("*.md"))
# What only others of their folder use; `dcil.export` stands for its main module.
NOT_SHOWN = {"__main__", "data.vision", "export.formats", "export.onnx_files"}


def test_every_module_is_on_a_page():
    """Each file of the core is shown; the everyday page stands for `dcil` itself."""
    shown = set(re.findall(r"automodule:: dcil\.(?!lab)([\w.]+)$", PAGES, re.M))
    folders = [ROOT / "dcil", *(ROOT / "dcil" / name for name in ("data", "export", "io"))]
    core = [path for folder in folders for path in folder.glob("*.py") if path.name != "__init__.py"]
    modules = {".".join(path.relative_to(ROOT / "dcil").with_suffix("").parts) for path in core}
    assert modules - NOT_SHOWN == shown - {"data", "export"}


def test_public_names_are_on_the_first_page():
    """What `dcil` exports is shown, unless it is a module or a table."""
    names = [n for n in dcil.__all__ if callable(getattr(dcil, n))]
    assert [n for n in names if not re.search(rf"auto\w+:: dcil\.{n}\b", PAGES)] == []


def test_names_become_links():
    """Full names in single backticks do, but neither code in double ones nor roles."""
    lines = ["See `dcil.masks.flips` and `flips`, ``dcil.masks``, :py:obj:`dcil.fit`, `dcil export`."]
    assert api_pages.link_names(lines) == [
        "See :py:obj:`dcil.masks.flips` and `flips`, ``dcil.masks``, :py:obj:`dcil.fit`, `dcil export`."
    ]


def test_settings_come_as_a_table_with_their_reasons():
    """One row for each field of RunConfig, its default and its reason; other dataclasses stay as they are."""
    lines = ["A run."]
    api_pages.on_docstring(None, "class", "dcil.RunConfig", dcil.RunConfig, None, lines)
    text = "\n".join(lines)
    for field in dataclasses.fields(dcil.RunConfig):
        row = f"   * - ``{field.name}: {field.type} = {field.default!r}``\n     - "
        assert row + api_pages.escape(field.metadata["why"]) in text
    lines = ["A card."]
    api_pages.on_docstring(None, "class", "dcil.export.Card", dcil.methods.Method, None, lines)
    assert lines == ["A card."]


def test_markup_in_a_reason_is_escaped():
    """`|w|` and `*` mean something in reStructuredText."""
    assert api_pages.escape("|w| * 2") == r"\|w\| \* 2"


def test_fields_of_named_tuples_are_left_out():
    """Python's docstrings for them say nothing; all else is left to Sphinx."""
    assert api_pages.on_member(None, "class", "mutual", Phase.mutual, False, None) is True
    assert api_pages.on_member(None, "class", "x", SimpleNamespace(__doc__="What it is."), False, None) is None
