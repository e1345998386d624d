"""HTML from the templates in `dcil/lab/templates`: every value is escaped unless it is HTML already.

Also the function that writes tables in Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def safe(value: Any) -> Markup:
    """Return a value as HTML: unchanged if a template produced it, else as escaped text.

    Quotes are escaped as Python's `html` does, to match the committed outputs of the notebooks.

    >>> safe("it's <b>"), safe(Markup("<b>"))
    (Markup('it&#x27;s &lt;b&gt;'), Markup('<b>'))
    """
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def decimal(value: float) -> str:
    """Return a number as pages display it: three decimals and a true minus sign.

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
# JSON embedded in a page is compact, and the same from run to run.
TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": False, "allow_nan": False}


def render(template: str, /, **values: Any) -> Markup:
    """Return the named template filled with values; a value that the template needs and does not get is an error."""
    return Markup(TEMPLATES.get_template(f"{template}.html").render(values))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown; a `|` inside a cell is escaped."""
    lines = []
    for row in (head, ["---"] * len(head), *rows):
        cells = (str(cell).replace("|", "\\|") for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
