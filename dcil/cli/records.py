"""`records`: list, add, check, compare or describe run records."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from dcil import methods, records
from dcil.cli.options import as_path, command, group, table
from dcil.data.datasets import DATASETS
from dcil.errors import DcilError
from dcil.io.intake import plain
from dcil.io.messages import say
from dcil.lab import checkout
from dcil.lab.runs import json_schema, side_by_side
from dcil.run_record import Run


def add_parser(commands: Any) -> None:
    """Add `records list`, `add`, `check`, `diff` and `schema`."""
    actions = group(commands, "records", "list, add, check, compare or describe run records")
    listing = command(actions, "list", list_records, "one line for each record")
    choices = {"dataset": DATASETS, "method": sorted(methods.METHODS), "tier": ("smoke", "quick", "paper")}
    for name, allowed in choices.items():
        listing.add_argument(f"--{name}", metavar=name.upper(), choices=allowed, help=" | ".join(allowed))
    adding = command(actions, "add", add_records, "check records from any machine and add them, never overwriting")
    adding.add_argument("files", metavar="FILE", nargs="+", type=as_path, help="a record, or a run's folder")
    comparing = command(actions, "diff", diff_records, "compare two records side by side; exit code 1 if they differ")
    for which in ("A", "B"):
        comparing.add_argument(which, help="a file, a run's folder, a run id or a prefix of it, or the hash at its end")
    for action in (listing, adding, comparing):
        action.add_argument("--records-dir", metavar="D", type=as_path, default="records", help="[records]")
    checking = command(actions, "check", check_records, "check every record in a folder and name the bad ones")
    checking.add_argument("records_dir", metavar="DIR", nargs="?", type=as_path, default="records", help="[records]")
    command(actions, "schema", print_schema, "print the JSON Schema of a record, for tools that are not dcil")


def sound_records(folder: Path) -> tuple[list[Run], int]:
    """Return the runs of a folder's sound records, and the number of bad ones; print what is wrong with each of those.

    A sound record is a file of its own with the name of its run. Raises `DcilError` if there is no such folder.
    """
    if not folder.is_dir():
        raise DcilError(f"there is no folder {folder}; the book's records are in {checkout.root() / 'records'}")
    found, bad = [], 0
    for path in sorted(folder.glob("*.json")):
        try:
            if path.is_symlink():
                raise DcilError(f"{path} is a link; a record is a file of its own")
            run = Run(records.read(path))
            if run.run_id != path.stem:
                raise DcilError(f"{path} holds the run {run.run_id}; name it {run.run_id}.json")
            found.append(run)
        except DcilError as error:
            bad += 1
            say(f"dcil: error: {plain(str(error))}")
    return found, bad


def list_records(args: argparse.Namespace) -> int:
    """Print the sound records as a table, one row per run; exit code 2 if there are bad ones."""
    asked = {k: v for k in ("dataset", "method", "tier") if (v := getattr(args, k))}
    found, bad = sound_records(args.records_dir)
    rows = []
    for run in records.select(found, **asked):
        shared = ", shared" if math.isnan(run.cost.own_time_s) else ""
        rows.append(
            (
                run.run_id,
                run.tier,
                run["status"],
                run.environment.device,
                run.config.seed,
                ", ".join(f"{name} {end.last:.2f}" for name, end in run.by_pass.items()),
                f"{run.cost.time_s / 3600:.2f}{shared}",
            )
        )
    if rows:
        print(table(("run", "tier", "status", "device", "seed", "last top-1, %", "hours"), rows))
    words = "".join(f", {k} {v}" for k, v in asked.items()) + (f"; {bad} bad, not listed" if bad else "")
    print(f"{len(rows)} record(s) in {args.records_dir}{words}")
    return 2 if bad else 0


def add_records(args: argparse.Namespace) -> int:
    """Check all files first, then add them to the folder."""
    files = [path / "record.json" if path.is_dir() else path for path in args.files]
    for path in files:
        records.read(path)
    for path in files:
        print(plain(str(records.add(path, args.records_dir))))
    return 0


def check_records(args: argparse.Namespace) -> int:
    """Read every record; print what is wrong with each bad one."""
    found, bad = sound_records(args.records_dir)
    print(f"{len(found) + bad} record(s) in {args.records_dir}, {bad} bad")
    return 2 if bad else 0


def diff_records(args: argparse.Namespace) -> int:
    """Print two records side by side."""
    a, b = (side_by_side.find_record(name, args.records_dir) for name in (args.A, args.B))
    print(table(("what", a.run_id, b.run_id, "difference"), side_by_side.comparison(a, b)))
    same = side_by_side.same_but_for_timing(a, b)
    print("the same but for clocks, memory and date" if same else "they differ")
    return 0 if same else 1


def print_schema(args: argparse.Namespace) -> int:
    """Print the JSON Schema of a run record."""
    print(json.dumps(json_schema.json_schema(), indent=1))
    return 0
