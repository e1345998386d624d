"""`claims`: the verdict on each claim, and the changes since the log's last entry."""

from __future__ import annotations

import argparse
from typing import Any

from dcil import records
from dcil.cli.options import command, table
from dcil.config import PRECISIONS
from dcil.errors import DcilError
from dcil.lab import checkout


def add_parser(commands: Any) -> None:
    """Add `claims`."""
    parser = command(commands, "claims", show_claims, "print verdicts on the claims, and changes since the log's end")
    parser.add_argument(
        "--precision",
        metavar="NAME",
        choices=PRECISIONS,
        help="judge the records of this precision instead, by the same rules; the book's verdicts are on bf16",
    )
    parser.add_argument("--log", metavar="WHY", help="append the changes to book/verdicts.yml, with this reason")


def show_claims(args: argparse.Namespace) -> int:
    """Print the verdicts and the changes not yet in the log; exit code 1 if there are any and they were not entered.

    The log holds the verdicts on the book's own precision; verdicts on another precision are only printed.
    """
    from dcil.lab.evidence import (  # they need pandas, which a machine that only trains may lack
        claims,
        familywise,
        verdict_log,
    )

    book = checkout.root() / "book"
    known = claims.read_claims(book / "claims.yml")
    recorded = records.load_all(checkout.root() / "records")
    found = verdict_log.current_verdicts(known, recorded, args.precision)
    whole = familywise.with_p_in_words(familywise.corrected_table(known, recorded, args.precision))
    whole = whole.drop(columns="claim").rename(columns={"id": "claim"})
    print(table(whole.columns, whole.to_numpy().tolist()))
    if args.precision:
        if args.log is not None:
            raise DcilError("the log holds the verdicts on the book's own precision; leave out --precision or --log")
        return 0
    log = book / "verdicts.yml"
    changed = verdict_log.changes_since(verdict_log.read_log(log), found)
    for change in changed:
        print(f"since the log: {change.claim}, {change.tier}: {change.was} -> {change.to}")
    if args.log is not None:
        if not changed:
            raise DcilError("no verdict changed since the log's last entry; there is nothing to enter")
        verdict_log.append_entry(log, changed, args.log)
        print(f"{len(changed)} change(s) entered into {log}")
    return int(bool(changed) and args.log is None)
