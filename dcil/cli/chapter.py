"""`chapter`: execute a chapter of the book with other parameters."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from dcil import machine
from dcil.cli.options import as_path, command
from dcil.lab import checkout


def add_parser(commands: Any) -> None:
    """Add `chapter`."""
    parser = command(commands, "chapter", run_chapter, "execute a chapter of the book with other parameters")
    parser.add_argument("name", metavar="NAME", help="its number, name or file, e.g. 03")
    parser.add_argument(
        "-p",
        metavar=("NAME", "VALUE"),
        nargs=2,
        action="append",
        default=[],
        dest="given",
        help="set a parameter; may be repeated",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=as_path, help="where the executed notebook goes [_build/chapters/NAME.ipynb]"
    )


def run_chapter(args: argparse.Namespace) -> int:
    """Execute a chapter, print where the result is, and write a note beside it of when and on what it was executed."""
    from dcil.lab.book import chapters, freshness  # they need Jinja2, which a machine that only trains may lack

    os.environ.update(machine.SHORT_SPIN | os.environ)  # for the kernel: several chapters may be executed at once
    notebook, started = chapters.find_chapter(args.name), time.monotonic()
    out = args.out or checkout.root() / "_build" / "chapters" / notebook.name
    given = {name: chapters.parse_value(value) for name, value in args.given}
    print(chapters.execute(notebook, out, given))
    book = checkout.root() / "book"
    if notebook.resolve().parent == book and out.resolve().parent != book:  # committed chapters carry no timing
        freshness.write_note(notebook, out, given, started, checkout.root())
    return 0
