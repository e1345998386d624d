"""A small schema language for JSON: a value is checked against a shape, and each difference is named with its place.

A shape is a type, a `Number`, a `Text`, a `Named`, [shape of each item] or {key: shape}. Keys of the last are required,
except those that end in "?"; further keys are allowed and must only pass `unfit`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dcil.io.intake import CONTROL

DEPTH = 12  # deepest nesting; a record has 6 levels
CHARACTERS = 2**17  # most in any text; the longest is a packed mask
WHOLE = 2**53  # JSON parsers agree on whole numbers up to here


@dataclass(frozen=True)
class Number:
    """A number from `least` to `most`, inclusive; a `whole` one must be an integer."""

    least: float = -math.inf
    most: float = math.inf
    whole: bool = False


@dataclass(frozen=True)
class Text:
    """Text of at most `most` characters."""

    most: int = 200


@dataclass(frozen=True)
class Named:
    """An object of at most `most` names whose values all have the shape `each`."""

    each: Any
    most: int = 10_000


def problems(value: Any, shape: Any, place: str = "") -> list[str]:
    """Return where and how `value` differs from the shape, one message per difference."""
    at = place or "the file"
    if isinstance(shape, (dict, Named)) and not isinstance(value, dict):
        return [f"{at} must be an object, got {type(value).__name__}"]
    if isinstance(shape, dict):
        found = []
        for key, inner in shape.items():
            name = key.removesuffix("?")
            inside = f"{place}.{name}" if place else name
            if name in value:
                found += problems(value[name], inner, inside)
            elif name == key:
                found.append(f"{inside} is missing")
        return found
    if isinstance(shape, Named):
        if len(value) > shape.most:
            return [f"{at} must have at most {shape.most} entries, got {len(value)}"]
        return [p for name, item in value.items() for p in problems(item, shape.each, f"{at}[{name!r:.40}]")]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{at} must be a list, got {type(value).__name__}"]
        return [p for i, item in enumerate(value) for p in problems(item, shape[0], f"{place}[{i}]")]
    return _leaf(value, shape, at)


def _leaf(value: Any, shape: Any, at: str) -> list[str]:
    if isinstance(shape, Number):
        kinds: tuple[Any, ...] = (int,) if shape.whole else (int, float)
    else:
        kinds = (str,) if isinstance(shape, Text) else (shape,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and shape is not bool):
        return [f"{at} must be {' or '.join(kind.__name__ for kind in kinds)}, got {value!r:.40}"]
    if isinstance(shape, Text) and len(value) > shape.most:
        return [f"{at} must have at most {shape.most} characters, got {len(value)}"]
    if isinstance(shape, Number) and not shape.least <= value <= shape.most:
        return [f"{at} must be from {shape.least:.9g} to {shape.most:.9g}, got {value!r:.40}"]
    return []


def unfit(value: Any) -> str:
    """Return the first problem, at any depth, that would break a page, a table or another JSON parser, or "".

    Problems are nesting deeper than `DEPTH`, text that is too long or has control characters or lone surrogates,
    whole numbers beyond `WHOLE`, and numbers that are not finite.
    """
    return _unfit(value, 1).removeprefix(".")


def _unfit(value: Any, depth: int) -> str:
    if depth > DEPTH:
        return f" is nested more than {DEPTH} deep"
    if isinstance(value, dict):
        inside = ((f".{name!s:.40}", name, item) for name, item in value.items())
        return next((place + why for place, *both in inside for x in both if (why := _unfit(x, depth + 1))), "")
    if isinstance(value, list):
        return next((f"[{i}]{why}" for i, item in enumerate(value) if (why := _unfit(item, depth + 1))), "")
    if isinstance(value, str) and len(value) > CHARACTERS:
        return f" has {len(value)} characters, at most {CHARACTERS} are read"
    if isinstance(value, str) and (odd := CONTROL.search(value)):
        return f" has a character that is not text, {odd[0]!a}"
    if isinstance(value, float) and not math.isfinite(value):
        return f" is {value}, which is not a number of JSON"
    if isinstance(value, int) and not -WHOLE <= value <= WHOLE:
        return " is a whole number beyond 2^53, which readers of JSON round"
    return ""
