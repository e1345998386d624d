"""A Sphinx extension for the site: blocks under figures stay there, chapters say how long they are, files come along.

MyST-NB gives the caption of a cell to each of its outputs. A cell that shows a figure has two: the picture and the
block under it (`dcil.lab.page.provenance`). Before a notebook is read, what follows the picture becomes a cell of its
own.
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
# Spaces at which no line should break: before a unit, after a sign, within an interval and within "n = 3".
JOINT = re.compile(
    r"(?<=\d) (?=[%×](?!\w))|(?<=±) (?=\d)|(?<=\d) (?=to [-+]?[\d.,]+\))|(?<=\d to) (?=[-+]?[\d.,]+\))"
    r"|(?<=\bn) (?== \d)|(?<=\bn =) (?=\d)"
)
CELL = re.compile(r"(?<=>)[^<>]+(?=</td>)")  # the last words of a table's cell, in HTML


def split(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cells of a notebook; outputs after the first of a cell with a caption follow in a cell without one.

    Its source is not shown, but must not be empty: MyST-NB leaves such a cell out.
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
    """Say under the title of a chapter how long its words, as MyST counts them without code, take to read."""
    if not CHAPTER.fullmatch(app.env.docname):
        return
    minutes = max(1, app.env.metadata[app.env.docname]["wordcount"]["minutes"])
    words = f"About {minutes} minute{'s' if minutes > 1 else ''} to read"
    title = next(document.findall(nodes.title))
    title.parent.insert(title.parent.index(title) + 1, nodes.paragraph("", words, classes=["reading-time"]))


def unbroken(text: str) -> str:
    """Return a text that keeps a number on one line with its unit or its sign, and an interval within itself."""
    return JOINT.sub("\N{NO-BREAK SPACE}", text)


def keep_together(app: Any, document: nodes.document) -> None:
    """Join what belongs together, in text and in the cells of tables, not in code and formulas."""
    for text in list(document.findall(nodes.Text)):
        if isinstance(text.parent, nodes.raw):
            text.parent.replace(text, nodes.Text(CELL.sub(lambda cell: unbroken(cell[0]), text)))
        elif not isinstance(text.parent, (nodes.literal, nodes.FixedTextElement, nodes.math)) and JOINT.search(text):
            text.parent.replace(text, nodes.Text(unbroken(text)))


def copy_files(app: Any, error: Exception | None) -> None:
    """Put the records, and the library that draws interactive figures, beside the pages."""
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    (out / "records").mkdir(parents=True, exist_ok=True)
    for path in (root() / "records").glob("*.json"):  # nothing else is published from there, nor what a link points to
        if path.is_file() and not path.is_symlink():
            shutil.copyfile(path, out / "records" / path.name)
    (out / "plotly").mkdir(exist_ok=True)
    library = resources.files("plotly") / "package_data" / "plotly.min.js"
    (out / "plotly" / "plotly.min.js").write_bytes(library.read_bytes())


def setup(app: Any) -> dict[str, Any]:
    """Tell Sphinx what to call, and when."""
    app.connect("source-read", read_source)
    app.connect("doctree-read", tell_reading_time)
    app.connect("doctree-read", keep_together)
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
