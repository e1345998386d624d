"""An equation as a list of its terms, each with what it does in words; a script makes one line of them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dcil.lab.templating import render


class Term(NamedTuple):
    """A term of an equation: its formula in TeX, its name, and in words what it does, where `$` encloses formulas."""

    formula: str
    name: str
    words: str
    sign: str = "+"
    value: float | None = None  # measured in the page


def terms_html(name: str, left: Term, right: Sequence[Term], measured: str = "") -> str:
    """Return the equation `left` = `right`; `name` is what it is called, `measured` says where its values are from."""
    terms = [left, right[0]._replace(sign="="), *right[1:]]
    return render("terms", name=name, terms=terms, measured=measured)
