"""A Sphinx extension for the site's search: book/search.yml maps phrases that readers type to pages that answer them.

Sphinx finds a page only by words in it, and only if it has every word typed. So each phrase becomes an index entry at
the place that answers it, which the search ranks above titles; and its words become keywords of the page, which is then
found by them in any order. `book/_static/scorer.js` ranks the hits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from docutils import nodes

from dcil.errors import DcilError, reason

ASKED = "book/search.yml"


def read_phrases(path: str | Path) -> dict[str, tuple[str, str]]:
    """Return, for each phrase, the docname of the page that answers it, and the anchor there ("" for the page's top).

    Raises `DcilError` for a file that does not map phrases to pages.
    """
    try:
        asked = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DcilError(f"what readers search for, {path}, cannot be read: {reason(error)}") from error
    if not isinstance(asked, dict) or not all(isinstance(text, str) for pair in asked.items() for text in pair):
        raise DcilError(f"{path} must map phrases to pages, as in `refined gradient: 02-refined-gradient`")
    targets = {phrase: target.partition("#") for phrase, target in asked.items()}
    return {phrase: (f"book/{page}", place) for phrase, (page, _, place) in targets.items()}


def on_doctree(app: Any, document: nodes.document) -> None:
    """Add index entries and keywords to a page; warns of an anchor that the page does not have."""
    from sphinx import addnodes
    from sphinx.util import logging

    mine = {phrase: place for phrase, (page, place) in app.config.dcil_search.items() if page == app.env.docname}
    if not mine:
        return
    places = {place for node in document.findall(nodes.Element) for place in node["ids"]} | {""}
    for phrase, place in mine.items():
        if place not in places:
            logging.getLogger(__name__).warning("%s: the page has no place %r", ASKED, place, location=document)
        document += addnodes.index(entries=[("single", phrase, place, "main", None)])
    words = sorted({word for phrase in mine for word in phrase.split()})
    document += nodes.meta(name="keywords", content=", ".join(words))


def on_config(app: Any, config: Any) -> None:
    """Read the phrases, once per build; if they have changed, Sphinx reads all pages again."""
    config.dcil_search = read_phrases(Path(app.srcdir) / ASKED)


def on_environment(app: Any, env: Any) -> None:
    """Warn of phrases whose page the book does not have."""
    from sphinx.util import logging

    for phrase, (page, _) in app.config.dcil_search.items():
        if page not in env.all_docs:
            logging.getLogger(__name__).warning("%s: %r leads to %r, which is no page", ASKED, phrase, page)


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_config_value("dcil_search", {}, "env")
    app.connect("config-inited", on_config)
    app.connect("doctree-read", on_doctree)
    app.connect("env-updated", on_environment)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
