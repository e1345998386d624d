"""How pages word numbers and lists."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any


def listed(names: Iterable[Any], word: str = "and") -> str:
    """Return names, or numbers, as a sentence lists them, with a word before the last.

    >>> listed(["STE"]), listed(["STE", "RigL", "ST-3"]), listed([3, 8], "or")
    ('STE', 'STE, RigL and ST-3', '3 or 8')
    """
    *others, last = map(str, names)
    return f"{', '.join(others)} {word} {last}" if others else last


def number_of(number: int, word: str) -> str:
    """Return "1 run" or "3 runs"."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def joined(values: Iterable[Any], between: str = ", ") -> str:
    """Return the distinct values, sorted, as one text."""
    return between.join(str(value) for value in sorted(set(values)))


def in_ranges(numbers: Iterable[int]) -> str:
    """Return the distinct numbers, sorted, as one text; three or more in a row are given by their ends.

    >>> in_ranges([0, 1, 2, 3, 7]), in_ranges([1, 0])
    ('0 to 3, 7', '0, 1')
    """
    parts: list[str] = []
    # Within a row of consecutive numbers, number minus place stays the same.
    for _, row in groupby(enumerate(sorted(set(numbers))), lambda pair: pair[1] - pair[0]):
        found = [number for _, number in row]
        parts += [f"{found[0]} to {found[-1]}"] if len(found) > 2 else map(str, found)
    return ", ".join(parts)


def two_digits(value: float) -> str:
    """Return a ratio as sentences give it, with two significant digits, large ones whole.

    >>> two_digits(0.997), two_digits(2.014), two_digits(12.3)
    ('1.0', '2.0', '12')
    """
    return f"{value:.0f}" if value >= 10 else f"{value:#.2g}"


def three_digits(value: float) -> str:
    """Return a number with three significant digits, large ones whole."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def times_from_to(values: Iterable[float]) -> str:
    """Return the range of some ratios in words; a single number if both ends round to it.

    >>> times_from_to([1.9, 5.63, 4.3]), times_from_to([0.996, 1.0])
    ('1.9 to 5.6 times', '1.0 times')
    """
    values = list(values)
    return " to ".join(dict.fromkeys((two_digits(min(values)), two_digits(max(values))))) + " times"
