"""The book's YAML files: each a list of entries of one shape, checked by pydantic, with errors in plain sentences."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dcil import methods
from dcil.config import RunConfig
from dcil.errors import DcilError, reason, unknown
from dcil.lab.yaml_loaders import UniqueKeys

Words = Annotated[str, Field(min_length=1)]


def one_of(kind: str, names: Iterable[str]) -> AfterValidator:
    """Return a validator that accepts only these names; its error suggests the nearest one."""
    known = tuple(names)

    def check(name: str) -> str:
        if name not in known:
            raise unknown(kind, name, known)
        return name

    return AfterValidator(check)


SETTINGS = tuple(field.name for field in dataclasses.fields(RunConfig))
Setting = Annotated[str, one_of("setting", SETTINGS)]


def _a_variant() -> AfterValidator:
    """Return a validator that accepts the name of a method, alone or with settings as in "ste, lr 0.2"."""

    def check(name: str) -> str:
        method, *changes = re.split(r", (?=[a-z_]+ )", name)
        methods.get(method)
        for setting in (change.partition(" ")[0] for change in changes):
            if setting not in SETTINGS:
                raise unknown("setting", setting, SETTINGS)
        return name

    return AfterValidator(check)


Variant = Annotated[str, _a_variant()]


class Entry(BaseModel):
    """A frozen mapping with the declared fields and no others, of strict types: text is never read as a number."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def names_are_known(cls, given: Any) -> Any:
        """Refuse a field that is not declared, and suggest the nearest one that is."""
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for name in given if isinstance(given, dict) else ():
            if name not in known:
                raise unknown("field", name, known)
        return given


Shape = TypeVar("Shape", bound=Entry)


def read_entries(path: str | Path, shape: type[Shape], noun: str = "entry") -> list[Shape]:
    """Return the entries of a file, each validated as a `shape`.

    Raises `DcilError` for anything else, naming the file and every fault of the first bad entry; the entry is named by
    its id, or by its number if it has none.
    """
    try:
        entries = yaml.load(Path(path).read_text(encoding="utf-8"), UniqueKeys)
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise DcilError(f"{path} cannot be read: {reason(error)}") from error
    if not isinstance(entries, list):
        raise DcilError(f"{path} holds {type(entries).__name__}; it must be a list, with a - before each {noun}")
    found = []
    for number, entry in enumerate(entries, start=1):
        try:
            found.append(shape.model_validate(entry))
        except ValidationError as error:
            name = entry.get("id", number) if isinstance(entry, dict) else number
            faults = "; ".join(_sentence(fault, entry) for fault in error.errors())
            raise DcilError(f"{path}, {noun} {name}: {faults}") from error
    return found


def _place(steps: tuple[int | str, ...], entry: Any) -> str:
    """Return the dotted path of a fault within an entry, without the names that pydantic inserts for union members."""
    named, inside = [], entry
    for step in steps:
        is_key = isinstance(inside, dict) and step in inside
        is_index = isinstance(inside, list) and isinstance(step, int)
        if is_key or is_index:
            named.append(str(step))
            inside = inside[step]
    return ".".join(named)


def _sentence(fault: Mapping[str, Any], entry: Any) -> str:
    """Return a pydantic fault as a sentence: where it is, what is wrong, and what was expected."""
    inside, came, context = _place(fault["loc"], entry), fault["input"], fault.get("ctx", {})
    place = inside or "it"
    if fault["type"] == "value_error":
        return f"{inside}: {context['error']}".removeprefix(": ")
    if fault["type"] == "missing":
        return f"{place} has no {fault['loc'][-1]}"
    if fault["type"] == "union_tag_invalid":
        return str(unknown(f"kind of {place}", context["tag"], re.findall(r"'(\w+)'", context["expected_tags"])))
    if came in (None, "", [], {}):
        return f"{place} is empty"
    return f"{place} is {came!r:.60}; {fault['msg'].replace('Input', 'it', 1)}"
