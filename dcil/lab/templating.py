"""HTML from the templates of `dcil/lab/templates`: all that is put into one is escaped, unless it is HTML already.

And the one table in Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def safe(value: Any) -> Markup:
    """Return a value as HTML: as it is where it is a template's result, else as escaped text.

    Quotes are written as Python's `html` writes them, since the outputs that notebooks are committed with have them so.

    >>> safe("it's <b>"), safe(Markup("<b>"))
    (Markup('it&#x27;s &lt;b&gt;'), Markup('<b>'))
    """
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def decimal(value: float) -> str:
    """Return a number as pages show it to be read off: three decimals and a true minus sign.

    >>> decimal(-0.6), decimal(-0.0001)
    ('−0.600', '0.000')
    """
    return f"{round(value, 3) + 0:.3f}".replace("-", "−")


TEMPLATES = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=safe,
)
TEMPLATES.filters["decimal"] = decimal
# Data in a page is as short as it can be, and the same from run to run.
TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": False, "allow_nan": False}


def render(template: str, /, **values: Any) -> Markup:
    """Return the HTML that a template of this name makes of values; one that it lacks is an error."""
    return Markup(TEMPLATES.get_template(f"{template}.html").render(values))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown; a bar within a cell stays a bar."""
    lines = []
    for row in (head, ["---"] * len(head), *rows):
        cells = (str(cell).replace("|", "\\|") for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
