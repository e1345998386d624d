"""A Sphinx extension for the API pages: names in docstrings become links, and a configuration's fields a table."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

# `dcil.masks.compute_masks` between single backticks, as docstrings write names.
NAME = re.compile(r"(?<![`:])`(dcil(?:\.\w+)+)`(?!`)")


def link_names(lines: list[str]) -> list[str]:
    """Return a docstring's lines with full names such as `dcil.masks.compute_masks` turned into cross-references."""
    return [NAME.sub(r":py:obj:`\1`", line) for line in lines]


def field_table(config: type) -> list[str]:
    """Return a table in reStructuredText of a dataclass's fields: name, type and default, and its metadata "why"."""
    rows = [
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 40 60",
        "",
        "   * - field",
        "     - meaning, and where the default is from",
    ]
    for field in dataclasses.fields(config):
        rows += [
            f"   * - ``{field.name}: {field.type} = {field.default!r}``",
            f"     - {escape(field.metadata['why'])}",
        ]
    return [*rows, ""]


def escape(text: str) -> str:
    """Return a text with the characters escaped that reStructuredText reads as markup."""
    return re.sub(r"([*|`_\\])", r"\\\1", text)


def on_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Change a docstring's lines in place before Sphinx reads them."""
    explained = (
        what == "class"
        and dataclasses.is_dataclass(obj)
        and dataclasses.fields(obj)
        and all("why" in field.metadata for field in dataclasses.fields(obj))
    )
    lines[:] = link_names(lines) + (["", *field_table(obj)] if explained else [])


def on_member(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Skip the docstrings that Python generates for a named tuple's fields; the class's own describes them better."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", on_docstring)
    app.connect("autodoc-skip-member", on_member)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
