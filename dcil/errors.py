"""The one error that users see, and suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DcilError(ValueError):
    """Bad input, or a run that cannot go on: the message says what came, what was expected and how to mend it.

    The command line prints it without a traceback and exits with its `code`.
    """

    code = 2


def unknown(kind: str, value: object, allowed: Iterable[str]) -> DcilError:
    """Return the error for a name that is not allowed, suggesting the nearest one that is."""
    names = sorted(allowed)
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return DcilError(f"unknown {kind} {value!r}: {hint}Allowed: {', '.join(names)}.")
