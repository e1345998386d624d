"""Command-line arguments: options generated from `RunConfig`, errors that suggest the nearest choice, plain tables."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from dcil.config import RunConfig
from dcil.errors import DcilError, unknown
from dcil.io.files import expanded
from dcil.io.intake import plain

# For each type of field: how its option is parsed, and the placeholder for its value in the help.
OPTIONS: dict[str, dict[str, Any]] = {
    "str": {"metavar": "NAME"},
    "int": {"type": int, "metavar": "N"},
    "float": {"type": float, "metavar": "X"},
    "bool": {"action": argparse.BooleanOptionalAction},
    "tuple[int, ...]": {"type": int, "metavar": "N", "nargs": "*"},
}


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are `DcilError`s that suggest the nearest choice."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise DcilError(f"{message}. See: {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind = action.dest if action.metavar == "NAME" else str(action.metavar).lower()
            raise unknown(kind, value, action.choices)


def as_path(text: str) -> Path:
    """Return an argument as a path, with `~` expanded to the home folder."""
    try:
        return expanded(text)
    except DcilError as error:  # argparse would hide the message
        raise argparse.ArgumentTypeError(str(error)) from error


def command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str) -> Parser:
    """Add a command that calls `run`; returns the command's parser."""
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run, parser=parser)
    return parser


def group(commands: Any, name: str, summary: str) -> Any:
    """Add a command that has subcommands; returns the object to add them to."""
    return commands.add_parser(name, help=summary, description=summary).add_subparsers(metavar="ACTION", required=True)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an aligned plain-text table; line breaks and escape sequences in cells are printed as escapes."""
    lines = [[plain(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def add_config_options(parser: Any) -> None:
    """Add one option for each field of `RunConfig`; its help is the field's own explanation and default."""
    for field in fields(RunConfig):
        default = "by model" if field.default is None else field.default
        explained = f"{field.metadata['why']} [{default}]".replace("%", "%%")
        kind = OPTIONS[str(field.type).removesuffix(" | None")]
        parser.add_argument("--" + field.name.replace("_", "-"), default=None, help=explained, **kind)


def values_of_config(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `RunConfig` that were given on the command line."""
    return {f.name: value for f in fields(RunConfig) if (value := getattr(args, f.name)) is not None}


def refuse_unknown(parser: Parser, extra: list[str]) -> None:
    """Raise `DcilError`, suggesting the nearest option, for the first unrecognised argument."""
    if extra and not extra[0].startswith("-"):
        raise DcilError(f"{extra[0]!r} is one argument too many. See: {parser.prog} --help")
    if extra:
        raise unknown("option", extra[0].partition("=")[0], [o for a in parser._actions for o in a.option_strings])
