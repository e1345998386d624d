"""`queue`: train the runs of a grid that have no record yet."""

from __future__ import annotations

import argparse
import math
from typing import Any

from dcil.cli.options import as_path, command, table
from dcil.config import PRECISIONS, emulates
from dcil.errors import DcilError, unknown
from dcil.io.messages import say
from dcil.lab.sweep import grid, queue
from dcil.stopping import TRY_AGAIN


def add_parser(commands: Any) -> None:
    """Add `queue`."""
    summary = "train the missing runs of a grid, most urgent first; may be called repeatedly"
    parser = command(commands, "queue", work_queue, summary)
    parser.add_argument("grid", metavar="GRID", type=as_path, help="a file such as experiments/quick.yaml")
    parser.add_argument("--status", action="store_true", help="only print which runs are done, partial and missing")
    parser.add_argument("--only", metavar="RUN", nargs="+", default=[], help="only these run ids, or prefixes of them")
    parser.add_argument("--minutes", metavar="M", type=float, help="time limit; stops with checkpoints [no limit]")
    parser.add_argument("--pack", metavar="K", type=int, default=1, help="number of runs at a time on this machine [1]")
    parser.add_argument(
        "--separate",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="train each run in a process, not a thread [CPU: processes; GPU: threads]",
    )
    parser.add_argument(
        "--precision",
        metavar="NAME",
        choices=PRECISIONS,
        help=f"train every run in this precision instead of the grid's: {' | '.join(PRECISIONS)}",
    )
    parser.add_argument("--data-dir", metavar="D", help="folder of the data sets [DCIL_DATA, else data]")
    parser.add_argument("--runs-dir", metavar="D", type=as_path, default="runs", help="[runs]")
    parser.add_argument("--records-dir", metavar="D", type=as_path, default="records", help="[records]")


def planned_runs(args: argparse.Namespace) -> list[grid.Planned]:
    """Return the runs of the grid, or those that `--only` names; raises `DcilError` for a name not in the grid."""
    runs = grid.read_grid(args.grid, args.precision)
    for name in args.only:
        if not any(run.run_id.startswith(name) for run in runs):
            raise unknown(f"run of {args.grid}", name, {run.run_id for run in runs})
    return [run for run in runs if not args.only or run.run_id.startswith(tuple(args.only))]


def work_queue(args: argparse.Namespace) -> int:
    """Train the runs of a grid, or print its status; exit code 0: all done, 1: a run failed, 75: some runs are left."""
    if args.pack < 1:
        raise DcilError(f"--pack is {args.pack}; it must be at least 1")
    runs = planned_runs(args)
    if any(emulates(run.config) for run in runs):
        say(
            "dcil: this grid asks for bf16, for which this device has no instructions. Emulated, on a CPU, it is "
            "twelve times slower. --precision float32 trains the grid in float32; those records are compared among "
            "themselves"
        )
    if args.status:
        statuses = grid.statuses(runs, args.records_dir, args.runs_dir)
        print(status_table(statuses))
        print(grid.summary_in_words(statuses))
        return 0
    outcomes = queue.work_through(
        runs,
        records_dir=args.records_dir,
        runs_dir=args.runs_dir,
        data_dir=args.data_dir,
        minutes=args.minutes,
        pack=args.pack,
        separate=args.separate,
    )
    statuses = grid.statuses(runs, args.records_dir, args.runs_dir)
    print(grid.summary_in_words(statuses))
    if all(s.state == "done" for s in statuses):
        return 0
    return 1 if any(outcome.startswith("failed") for outcome in outcomes.values()) else TRY_AGAIN


def status_table(statuses: list[grid.Status]) -> str:
    """Return a table with a row for each run: how far it is, the minutes left, and what it serves."""
    rows = [
        (
            s.planned.priority,
            s.planned.run_id,
            s.state,
            f"{s.epochs:.2f} of {s.planned.config.epochs}",
            "?" if math.isnan(s.left_s) else f"{s.left_s / 60:.0f} min",
            "; ".join(s.planned.serves),
        )
        for s in statuses
    ]
    return table(("priority", "run", "state", "epochs", "left", "serves"), rows)
