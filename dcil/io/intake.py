"""Untrusted input: JSON that every parser reads the same way, and text made safe for one line of a terminal."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, NoReturn

VALUES = 2**19  # most values per text, counted by commas; each takes about a hundred bytes once parsed
DIGITS = 40  # most characters of a number; the longest that Python writes for a double has 24


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r:.40} stands there twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _number(text: str, kind: type) -> Any:
    if len(text) > DIGITS:
        raise ValueError(f"a number has {len(text)} characters, at most {DIGITS} are read")
    if not math.isfinite(value := kind(text)):
        raise ValueError(f"{text} is beyond the numbers of a computer")
    return value


def parse_json(content: bytes) -> Any:
    """Return the value of JSON in UTF-8; raises `ValueError` for anything that parsers read differently, or not at all.

    That is a duplicate key in an object, NaN and Infinity, numbers of more than `DIGITS` characters or beyond a double,
    values nested deeper than Python can parse, and more than `VALUES` values.

    >>> parse_json(b'{"lr": 0.1, "lr": 0.2}')
    Traceback (most recent call last):
    ValueError: the key 'lr' stands there twice
    """
    if content.count(b",") > VALUES:
        raise ValueError(f"it has more than {VALUES:,} values, the most that are read")
    try:
        return json.loads(
            content.decode(),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=lambda text: _number(text, int),
            parse_float=lambda text: _number(text, float),
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def checksum(value: Any) -> str:
    """Return the SHA-256 of a JSON value, in hex; independent of the order of keys and of how numbers are written.

    >>> checksum({"a": 1, "b": 2.0}) == checksum({"b": 2, "a": 1.0})
    True
    """
    numbers_alike = json.loads(json.dumps(value, allow_nan=False), parse_int=float)
    text = json.dumps(numbers_alike, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    r"""Return text for a terminal or a log: control characters, line breaks and lone surrogates as escapes.

    >>> print(plain("one\nline \x1b[31m"))
    one\nline \x1b[31m
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
