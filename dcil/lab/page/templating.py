"""HTML from the templates of this folder; whatever is filled in is escaped."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def decimal(value: float) -> str:
    """Return a number as pages show it to be read off: three decimals and a true minus sign.

    >>> decimal(-0.6), decimal(-0.0001)
    ('−0.600', '0.000')
    """
    return f"{round(value, 3) + 0:.3f}".replace("-", "−")


@functools.cache
def environment() -> jinja2.Environment:
    """Return the templates, with autoescape; a name that a template lacks is an error."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.PackageLoader("dcil.lab.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Data in a page is as short as it can be, and the same from run to run.
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": False, "allow_nan": False}
    found.filters["decimal"] = decimal
    return found


def render(template: str, **values: Any) -> str:
    """Return a template of the folder `templates`, filled in; a missing value is an error."""
    return environment().get_template(template).render(values)
