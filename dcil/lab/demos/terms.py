"""An equation as a list of terms, each with an explanation in words; a script joins them into one line again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dcil.lab.templating import render


class Term(NamedTuple):
    """A term of an equation: its TeX, its name, and an explanation in words, in which `$` encloses formulas."""

    formula: str
    name: str
    words: str
    sign: str = "+"
    value: float | None = None  # measured in the page


def terms_html(name: str, left: Term, right: Sequence[Term], measured: str = "") -> str:
    """Return the equation `left` = `right` as HTML; `name` is its name, `measured` says where its values come from."""
    terms = [left, right[0]._replace(sign="="), *right[1:]]
    return render("terms", name=name, terms=terms, measured=measured)
