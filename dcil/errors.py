"""The one error that users see, and suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DcilError(ValueError):
    """Bad input, or a run that cannot go on: the message says what came, what was expected and how to mend it.

    The command line prints it without a traceback and exits with its `code`.
    """

    code = 2


# A list longer than this is shown in part. Its names, such as run ids, have half of their letters in common anyway.
LONG = 35

# Other names for ours. By spelling, "gpu" is nearest to "cpu", and "fp32" to "tf32".
SYNONYMS = {
    "gpu": "cuda",
    "mps": "cpu",  # on a Mac, runs train on the processor
    "fp32": "float32",
    "fp64": "float64",
    "double": "float64",
    "bfloat16": "bf16",
}


def reason(error: Exception) -> str:
    """Return why something failed; of an `OSError`, the reason alone, without its number and the file's path.

    >>> reason(FileNotFoundError(2, "No such file or directory", "a.json")), reason(ValueError("it is empty"))
    ('no such file or directory', 'it is empty')
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return str(error)


def unknown(kind: str, value: object, allowed: Iterable[str]) -> DcilError:
    """Return the error for a name that is not allowed, suggesting the one that was probably meant."""
    names = sorted(allowed)
    if not names:
        return DcilError(f"unknown {kind} {value!r}: there is none yet.")
    synonym = SYNONYMS.get(str(value).lower())
    cutoff = 0.5 if len(names) <= LONG else 0.8
    near = [name for name in names if name in (synonym, str(value).lower())]
    near = near or difflib.get_close_matches(str(value), names, n=1, cutoff=cutoff)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(names) if len(names) <= LONG else f"{', '.join(names[:3])} and {len(names) - 3} more"
    return DcilError(f"unknown {kind} {value!r}: {hint}Allowed: {listed}.")
