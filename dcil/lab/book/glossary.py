"""A Sphinx extension: writes the glossary's definitions into one small script, which a page loads to show a definition.

It is a script because a page opened from disk may load scripts, but not other pages. `book/_static/glossary.js` shows
the definition in place.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup

FILE = "glossary-words.js"


def definitions(page: str) -> dict[str, dict[str, str]]:
    """Return the glossary entries of an HTML page, by anchor: the word, and its definition as HTML."""
    found: dict[str, dict[str, str]] = {}
    for term in BeautifulSoup(page, "html.parser").select("dl.glossary > dt[id]"):
        says = term.find_next_sibling("dd")
        for link in term.select("a.headerlink"):
            link.decompose()
        if says is not None:
            found[str(term["id"])] = {"word": term.get_text().strip(), "says": says.decode_contents().strip()}
    return found


def write_words(app: Any, error: Exception | None) -> None:
    """Write the definitions of every glossary of the book to the site's static files."""
    if error or app.builder.format != "html":
        return
    objects = app.env.domaindata["std"]["objects"].items()
    pages = sorted({docname for (kind, _), (docname, _) in objects if kind == "term"})
    out = Path(app.outdir)
    words: dict[str, dict[str, str]] = {}
    for docname in pages:
        words |= definitions((out / f"{docname}.html").read_text(encoding="utf-8"))
    (out / "_static" / FILE).write_text(
        f"window.glossaryWords = {json.dumps(words, ensure_ascii=False)};\n", encoding="utf-8"
    )


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("build-finished", write_words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
