"""A Sphinx extension for the site: figures with their source blocks, reading times, unbroken numbers, and extra files.

MyST-NB repeats a cell's caption for each of its outputs. A cell that shows a figure has two outputs: the picture, and
the block below it (`dcil.lab.page.provenance`). So, before a notebook is read, the outputs after the picture are moved
into a cell of their own.
"""

from __future__ import annotations

import json
import re
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from docutils import nodes

from dcil.lab.checkout import root

CHAPTER = re.compile(r"book/(\d\d-.+|your-own-network)")  # pages that are read from beginning to end
# Spaces at which no line should break: before a unit, after ±, within an interval and within "n = 3".
JOINT = re.compile(
    r"(?<=\d) (?=[%×](?!\w))|(?<=±) (?=\d)|(?<=\d) (?=to [-+]?[\d.,]+\))|(?<=\d to) (?=[-+]?[\d.,]+\))"
    r"|(?<=\bn) (?== \d)|(?<=\bn =) (?=\d)"
)
CELL = re.compile(r"(?<=>)[^<>]+(?=</td>)")  # the text at the end of an HTML table cell


def split(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a notebook's cells, in which a cell with a caption keeps its first output; the others get their own cell.

    The new cell's source is not shown, but must not be empty: MyST-NB drops empty cells.
    """
    result = []
    for cell in cells:
        result.append(cell)
        if "figure" in cell["metadata"].get("mystnb", {}) and len(cell.get("outputs", ())) > 1:
            rest = cell | {
                "id": f"{cell['id']}-source",
                "source": "pass",
                "metadata": {"tags": ["remove-input"]},
                "outputs": cell["outputs"][1:],
            }
            result[-1:] = [cell | {"outputs": cell["outputs"][:1]}, rest]
    return result


def read_source(app: Any, docname: str, source: list[str]) -> None:
    """Split the cells of a notebook that Sphinx is about to read."""
    if str(app.env.doc2path(docname)).endswith(".ipynb"):
        notebook = json.loads(source[0])
        source[0] = json.dumps(notebook | {"cells": split(notebook["cells"])})


def tell_reading_time(app: Any, document: nodes.document) -> None:
    """Say below a chapter's title how long it takes to read, by MyST's word count, which excludes code."""
    if not CHAPTER.fullmatch(app.env.docname):
        return
    minutes = max(1, app.env.metadata[app.env.docname]["wordcount"]["minutes"])
    words = f"About {minutes} minute{'s' if minutes > 1 else ''} to read"
    title = next(document.findall(nodes.title))
    title.parent.insert(title.parent.index(title) + 1, nodes.paragraph("", words, classes=["reading-time"]))


def unbroken(text: str) -> str:
    """Return a text with no-break spaces that keep a number on one line with its unit or sign, and intervals whole."""
    return JOINT.sub("\N{NO-BREAK SPACE}", text)


def keep_together(app: Any, document: nodes.document) -> None:
    """Apply `unbroken` to text and table cells, but not to code and formulas."""
    for text in list(document.findall(nodes.Text)):
        if isinstance(text.parent, nodes.raw):
            text.parent.replace(text, nodes.Text(CELL.sub(lambda cell: unbroken(cell[0]), text)))
        elif not isinstance(text.parent, (nodes.literal, nodes.FixedTextElement, nodes.math)) and JOINT.search(text):
            text.parent.replace(text, nodes.Text(unbroken(text)))


def copy_files(app: Any, error: Exception | None) -> None:
    """Copy the records, and plotly's script for interactive figures, to the site."""
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    (out / "records").mkdir(parents=True, exist_ok=True)
    for path in (root() / "records").glob("*.json"):  # nothing else is published from there; links are not followed
        if path.is_file() and not path.is_symlink():
            shutil.copyfile(path, out / "records" / path.name)
    (out / "plotly").mkdir(exist_ok=True)
    library = resources.files("plotly") / "package_data" / "plotly.min.js"
    (out / "plotly" / "plotly.min.js").write_bytes(library.read_bytes())


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", read_source)
    app.connect("doctree-read", tell_reading_time)
    app.connect("doctree-read", keep_together)
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
