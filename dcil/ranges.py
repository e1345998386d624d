"""The values that fields of a configuration accept: one class per kind, each with its error messages."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol

from dcil.errors import DcilError, unknown


class Range(Protocol):
    """The values that a field accepts."""

    def accept(self, name: str, value: Any) -> Any:
        """Return the value as the field stores it; raises `DcilError` naming the field for a value out of range."""
        ...


@dataclass(frozen=True)
class OneOf:
    """A name from a fixed list."""

    allowed: Collection[str]

    def accept(self, name: str, value: Any) -> str:
        """Return the name; raises `DcilError` with the nearest allowed name for any other."""
        if value not in tuple(self.allowed):  # a tuple: `in` of a dict fails for unhashable values
            raise unknown(name, value, self.allowed)
        return value


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int = 0
    most: int = 10**9

    def accept(self, name: str, value: Any) -> int:
        """Return the number."""
        if not _is_whole(value, self.least):
            raise DcilError(f"{name} is {value!r}; it must be a whole number of at least {self.least}")
        if value > self.most:
            raise DcilError(f"{name} is {value}; it must be at most {self.most:,}")
        return int(value)  # of NumPy's integers too


@dataclass(frozen=True)
class Positive:
    """A number above 0 and up to `most`."""

    most: float

    def accept(self, name: str, value: Any) -> float:
        """Return the number as a float."""
        number = _float(name, value)
        if not 0 < number <= self.most:
            raise DcilError(f"{name} is {number}; it must be a positive number of at most {self.most:g}")
        return number


@dataclass(frozen=True)
class Fraction:
    """A number from 0 to below 1."""

    def accept(self, name: str, value: Any) -> float:
        """Return the number as a float."""
        number = _float(name, value)
        if not 0 <= number < 1:
            raise DcilError(f"{name} is {number}; {self.refusal(number)}")
        return number

    def refusal(self, number: float) -> str:
        """Return the end of the error message for a number out of range."""
        return "it must be in [0, 1)"


class Removed(Fraction):
    """A fraction of the weights, which people also think of in percent."""

    def refusal(self, number: float) -> str:
        """Return what is said of a number out of range, with the fraction that a percentage means."""
        mend = f"; did you mean {number / 100:g}?" if 1 < number < 100 else ""
        return f"it is the fraction removed and must be in [0, 1){mend}"


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def accept(self, name: str, value: Any) -> bool:
        """Return the flag."""
        if not isinstance(value, bool):
            raise DcilError(f"{name} is {value!r}; it must be true or false")
        return value


@dataclass(frozen=True)
class Epochs:
    """A list of epochs, counted from 0."""

    def accept(self, name: str, value: Any) -> tuple[int, ...]:
        """Return the epochs as a tuple."""
        if not isinstance(value, (tuple, list)) or not all(_is_whole(epoch, 0) for epoch in value):
            raise DcilError(f"{name} is {value!r}; it must be a list of epochs, e.g. [150, 225]")
        return tuple(map(int, value))


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _float(name: str, value: Any) -> float:
    """Return a number as a float: equal values, such as 1 and 1.0 or -0.0 and 0.0, must give the same run id."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise DcilError(f"{name} is {value!r}; it must be a number")
    if isinstance(value, int) and abs(value) > 1e300:  # beyond the range of a float
        raise DcilError(f"{name} is a number of {len(str(value))} digits; it is far too large")
    return float(value) + 0.0
