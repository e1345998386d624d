"""`status`: when each chapter was executed, and whether it is fresh."""

from __future__ import annotations

import argparse
from typing import Any

from dcil.cli.options import as_path, command, table
from dcil.lab import checkout
from dcil.lab.book import freshness


def add_parser(commands: Any) -> None:
    """Add `status`."""
    parser = command(commands, "status", show_status, "when each chapter was executed, and why it is stale if it is")
    parser.add_argument("--executed", metavar="D", type=as_path, help="folder of executed chapters [_build/executed]")
    parser.add_argument("--out", metavar="FILE", type=as_path, help="write it as Markdown, for the site")


def show_status(args: argparse.Namespace) -> int:
    """Print the state of each chapter, or write it; exit code 1 if one is not fresh and it was printed."""
    root = checkout.root()
    names = sorted(path.stem for path in (root / "book").glob("*.ipynb"))
    notes = freshness.read_notes(args.executed or root / "_build" / "executed")
    if args.out:
        args.out.write_text(freshness.status_page(names, notes, root))
        return 0
    found = freshness.states(names, notes, root)
    shown = []
    for name, state, why, note in found:
        ran = (note.when, freshness.duration_in_words(note.seconds), note.preset) if note else ("", "", "")
        shown.append((name, state, *ran, why))
    print(table(("chapter", "state", "executed (UTC)", "took", "preset", "why"), shown))
    return int(any(state != freshness.FRESH for _, state, *_ in found))
