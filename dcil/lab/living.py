"""Commands about the book itself: `claims`, the verdicts and what changed them; `status`, how fresh its pages are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dcil import records
from dcil.arguments import command, table
from dcil.config import PRECISIONS
from dcil.errors import DcilError
from dcil.lab import chapters, status


def claims_parser(commands: Any) -> None:
    """Add `claims`."""
    parser = command(commands, "claims", show_claims, "the verdict on each claim, and what changed since the log's end")
    parser.add_argument("--precision", metavar="NAME", choices=PRECISIONS, help="judge the records of this precision "
                        "by the same rules, beside the book's verdicts, which are on bf16")  # fmt: skip
    parser.add_argument("--log", metavar="WHY", help="enter the changes into book/verdicts.yml, with this reason")


def show_claims(args: argparse.Namespace) -> int:
    """Print the verdicts and what the log does not have yet; exit code 1 if that is anything and was not entered.

    The log is of the book's own precision; of another one the verdicts are printed only.
    """
    from dcil.lab import claims, family, verdicts  # they need pandas, which a machine that only trains may lack

    book = chapters.root() / "book"
    known = claims.read(book / "claims.yml")
    recorded = records.load_all(chapters.root() / "records")
    found = verdicts.now(known, recorded, args.precision)
    whole = family.rounded(family.table(known, recorded, args.precision))
    whole = whole.drop(columns="claim").rename(columns={"id": "claim"})
    print(table(whole.columns, whole.to_numpy().tolist()))
    if args.precision:
        if args.log is not None:
            raise DcilError("the log holds the verdicts on the book's own precision; leave out --precision or --log")
        return 0
    log = book / "verdicts.yml"
    changed = verdicts.changes(verdicts.read(log), found)
    for change in changed:
        print(f"since the log: {change['claim']}, {change['tier']}: {change['from']} -> {change['to']}")
    if args.log is not None:
        if not changed:
            raise DcilError("no verdict changed since the log's last entry; there is nothing to enter")
        verdicts.append(log, changed, args.log)
        print(f"{len(changed)} change(s) entered into {log}")
    return int(bool(changed) and args.log is None)


def status_parser(commands: Any) -> None:
    """Add `status`."""
    parser = command(commands, "status", show_status, "when each chapter was executed, and why it is stale if it is")
    parser.add_argument("--executed", metavar="D", type=Path, help="folder of executed chapters [_build/executed]")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write it as Markdown, for the site")


def show_status(args: argparse.Namespace) -> int:
    """Print the state of each chapter, or write it; exit code 1 if one is not fresh and it was printed."""
    root = chapters.root()
    names = sorted(path.stem for path in (root / "book").glob("*.ipynb"))
    notes = status.read(args.executed or root / "_build" / "executed")
    if args.out:
        args.out.write_text(status.page(names, notes, root))
        return 0
    found = status.rows(names, notes, root)
    shown = [(name, state, *((note.when, status.duration(note.seconds), note.preset) if note else ("", "", "")), why)
             for name, state, why, note in found]  # fmt: skip
    print(table(("chapter", "state", "executed (UTC)", "took", "preset", "why"), shown))
    return int(any(state != status.FRESH for _, state, *_ in found))


PARSERS = (claims_parser, status_parser)
