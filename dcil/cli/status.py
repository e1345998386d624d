"""`status`: when each chapter was executed, and whether it is up to date."""

from __future__ import annotations

import argparse
from typing import Any

from dcil.cli.options import as_path, command, table
from dcil.lab import checkout
from dcil.lab.book import freshness


def add_parser(commands: Any) -> None:
    """Add `status`."""
    parser = command(commands, "status", show_status, "print when each chapter was executed and, if it is stale, why")
    parser.add_argument("--executed", metavar="D", type=as_path, help="folder of executed chapters [_build/executed]")
    parser.add_argument("--out", metavar="FILE", type=as_path, help="write Markdown, for the site, instead of printing")


def show_status(args: argparse.Namespace) -> int:
    """Print the state of each chapter, or write it to a file; when printed, exit code 1 if a chapter is not fresh."""
    root = checkout.root()
    names = sorted(path.stem for path in (root / "book").glob("*.ipynb"))
    notes = freshness.read_notes(args.executed or root / "_build" / "executed")
    if args.out:
        args.out.write_text(freshness.status_page(names, notes, root), encoding="utf-8")
        return 0
    found = freshness.states(names, notes, root)
    shown = []
    for name, state, why, note in found:
        ran = (note.when, freshness.duration_in_words(note.seconds), note.preset) if note else ("", "", "")
        shown.append((name, state, *ran, why))
    print(table(("chapter", "state", "executed (UTC)", "took", "preset", "why"), shown))
    return int(any(state != freshness.FRESH for _, state, *_ in found))
