"""HTML from the templates of this folder; whatever is filled in is escaped."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


@functools.cache
def environment() -> jinja2.Environment:
    """Return the templates, with autoescape; a name that a template lacks is an error."""
    import jinja2

    loader = jinja2.PackageLoader("dcil.lab.page")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def render(template: str, **values: Any) -> str:
    """Return a template of the folder `templates`, filled in."""
    return environment().get_template(template).render(values)
