"""A form for a chapter's parameters at the end of its page, with the commands that run it with the reader's values.

Python writes the whole form; `book/_static/rerun.js` shows its inputs and updates the commands as they change. Without
the script, a table and the commands remain.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dcil.errors import DcilError
from dcil.lab.templating import render
from dcil.methods import METHODS
from dcil.models import MODELS

#: By chapter, the parameters whose values in this process differ from their defaults; set by
#: `dcil.lab.book.chapters.begin`.
given: dict[str, dict[str, Any]] = {}
#: By chapter, its form, made by `begin` and shown by `box` at the chapter's end.
forms: dict[str, Markup] = {}

REGISTRIES: dict[str, Iterable[str]] = {"dcil.methods": METHODS, "dcil.models": MODELS}


@dataclass(frozen=True)
class Parameter:
    """One line of a chapter's parameter cell: `name = default  # meaning`, with the default as source text."""

    name: str
    default: str
    meaning: str

    @property
    def value(self) -> Any:
        """The default as a Python value."""
        return ast.literal_eval(self.default)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that `meaning` lists (`smoke | quick | paper: ...`, or the names of a registry), if any.

        A parameter that is a list has no choices, but its `entry` may have.
        """
        listed = re.match(r"[\w.]+( \| [\w.]+)*(?=[:;])", self.meaning)
        if listed and (" | " in listed[0] or listed[0] == self.value):
            return tuple(listed[0].split(" | "))
        return tuple(REGISTRIES[self.registry]) if self.registry and self.entry is None else ()

    @property
    def registry(self) -> str | None:
        """The registry whose names `meaning` asks for (`a name of dcil.methods`), if any."""
        named = re.search(r"\bnames? of (dcil\.\w+)", self.meaning)
        return named[1] if named else None

    @property
    def entry(self) -> Parameter | None:
        """What an entry of this parameter must be, if the parameter is a list."""
        if not isinstance(self.value, list):
            return None
        first = self.value[0] if self.value else ""
        return Parameter(self.name, repr(first), self.meaning)

    @property
    def is_text(self) -> bool:
        """Whether a text is expected: the default is one, or `meaning` says that it is a folder."""
        return isinstance(self.value, str) or bool(re.match("folder|where", self.meaning))

    @property
    def nullable(self) -> bool:
        """Whether None is allowed."""
        return self.value is None or "None:" in self.meaning

    @property
    def limits(self) -> dict[str, str] | None:
        """The attributes min, max and step of an HTML number input, as far as known; None if it is not a number."""
        least = re.search(r"at least (\d+)", self.meaning)
        span = re.search(r"(?:\[|from )(\d+)(?:, | up to )(\d+)", self.meaning)
        if type(self.value) not in (int, float) and not (self.value is None and least):
            return None
        low, high = span.groups() if span else (least[1] if least else None, None)
        whole = not isinstance(self.value, float) and not self.meaning.startswith("number")
        limits = {"min": low, "max": high, "step": "1" if whole else "any"}
        return {k: v for k, v in limits.items() if v is not None}

    def takes(self, value: Any) -> bool:
        """Return whether `meaning` allows a value; what it does not restrict is allowed."""
        if self.entry is not None:
            if not isinstance(value, list) or not (value or self.value == []):
                return False
            return all(map(self.entry.takes, value)) and len(set(value)) == len(value)
        if value is None:
            return self.nullable
        if self.choices:
            return shown(value) in self.choices and isinstance(value, str if self.value is None else type(self.value))
        if (limits := self.limits) is None:
            return isinstance(value, str) or not self.is_text
        if type(value) not in (int, float) or (limits["step"] == "1" and type(value) is float):
            return False
        above = value > 0 or "above 0" not in self.meaning
        return above and float(limits.get("min", "-inf")) <= value < float(limits.get("max", "inf"))


def shown(value: Any) -> str:
    """Return a value as a reader types it: text without quotes, lists as JSON, anything else as its `repr`."""
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, list) else repr(value)


def field(parameter: Parameter, value: Any) -> Markup:
    """Return a parameter's HTML input: a list to choose from, a number, or text; hidden until the script shows it."""
    name = f"rerun-{parameter.name}"
    common = {
        "id": name,
        "name": parameter.name,
        "data-default": shown(parameter.value),
        "aria-describedby": f"{name}-meaning",
    }
    if parameter.choices:
        none = ["None"] if parameter.nullable else []
        options = list(dict.fromkeys([*none, *parameter.choices, shown(value)]))
        return render("rerun_field", attributes=common, options=options, chosen=shown(value))
    limits = parameter.limits
    kind = {"type": "text", "spellcheck": "false"} if limits is None else {"type": "number", **limits}
    empty = {"placeholder": "None"} if parameter.nullable else {"required": "required"}
    typed = {"value": "" if value is None else shown(value)}
    return render("rerun_field", attributes=common | kind | empty | typed, options=[])


def lines(chapter: str, given: dict[str, Any]) -> dict[str, str]:
    """Return the shell commands that run a chapter with these parameters, one for make and one for papermill."""
    options = " ".join(f"-p {name} {shlex.quote(shown(value))}" for name, value in given.items())
    return {
        "make": f"make chapter NAME={chapter}" + (f" P={shlex.quote(options)}" if given else ""),
        "papermill": f"papermill book/{chapter}.ipynb out.ipynb {options}".rstrip(),
    }


def box(chapter: str) -> Markup:
    """Return the folded box at the end of a chapter, as HTML: its form and the commands that run it again.

    Raises `DcilError` if the chapter has not called `chapters.begin`.
    """
    if chapter not in forms:
        raise DcilError(f"{chapter} has not begun; its second cell calls chapters.begin({chapter!r}, globals())")
    return render("rerun_box", form=forms[chapter])


def redraw(chapter: str) -> str:
    """Return the command that draws a chapter's figures again: `make chapter`, with the parameters of this process."""
    return lines(chapter, given.get(chapter, {}))["make"]


def form(chapter: str, declared: Sequence[Parameter], given: dict[str, Any]) -> Markup:
    """Return a chapter's form, as HTML: a row for each declared parameter, with its value in this process (`given`)."""
    rows = [
        {
            "name": p.name,
            "value": shown(given[p.name]),
            "field": field(p, given[p.name]),
            "default": shown(p.value),
            "meaning": p.meaning.replace(" | ", ", "),
        }
        for p in declared
    ]
    example = {declared[0].name: given[declared[0].name]}
    return render("rerun_form", chapter=chapter, rows=rows, lines=lines(chapter, example))
