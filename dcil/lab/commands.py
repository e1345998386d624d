"""Commands that read records, grids, checkpoints of the authors and chapters: the parser of each, and what it calls."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from dcil import data, methods, records
from dcil.arguments import command, group, table
from dcil.config import DATASETS, PRECISIONS, emulates
from dcil.errors import DcilError
from dcil.intake import plain
from dcil.lab import authors, chapters, compare, grid, queue, schema, status
from dcil.stopping import TRY_AGAIN

# --- records


def records_parser(commands: Any) -> None:
    """Add `records list`, `add`, `check`, `diff` and `schema`."""
    actions = group(commands, "records", "list, take in, check, compare or describe run records")
    listing = command(actions, "list", list_records, "one line for each record")
    choices = {"dataset": DATASETS, "method": sorted(methods.METHODS), "tier": ("smoke", "quick", "paper")}
    for name, allowed in choices.items():
        listing.add_argument(f"--{name}", metavar=name.upper(), choices=allowed, help=" | ".join(allowed))
    adding = command(actions, "add", add_records, "check records of any machine and take them in, never overwriting")
    adding.add_argument("files", metavar="FILE", nargs="+", type=Path)
    comparing = command(actions, "diff", diff_records, "two records side by side; exit code 1 if they differ")
    for which in ("A", "B"):
        comparing.add_argument(which, help="a file, a run id or its beginning, or the hash at its end")
    for action in (listing, adding, comparing):
        action.add_argument("--records-dir", metavar="D", type=Path, default="records", help="[records]")
    checking = command(actions, "check", check_records, "check every record of a folder and name the bad ones")
    checking.add_argument("records_dir", metavar="DIR", nargs="?", type=Path, default="records", help="[records]")
    command(actions, "schema", print_schema, "print the JSON Schema of a record, for tools that are not dcil")


def folder_of_records(folder: Path) -> Path:
    """Return the folder; raises `DcilError` when there is none."""
    if not folder.is_dir():
        raise DcilError(f"there is no folder {folder}; give the folder of the records")
    return folder


def list_records(args: argparse.Namespace) -> int:
    """Print the records as a table, one row a run."""
    asked = {k: v for k in ("dataset", "method", "tier") if (v := getattr(args, k))}
    found = records.load_all(folder_of_records(args.records_dir), **asked)
    rows = []
    for r in found:
        tops = ", ".join(f"{name} {end['last']['top1']:.2f}" for name, end in r["final"]["passes"].items())
        rows.append((r["run_id"], r["tier"], r["status"], r["environment"]["device"], r["config"]["seed"], tops,
                     f"{r['cost']['time_s'] / 3600:.2f}" + (", shared" if math.isnan(records.own_time_s(r)) else "")))
    if rows:
        print(table(("run", "tier", "status", "device", "seed", "last top-1, %", "hours"), rows))
    print(f"{len(rows)} record(s) in {args.records_dir}" + "".join(f", {k} {v}" for k, v in asked.items()))
    return 0


def add_records(args: argparse.Namespace) -> int:
    """Check all the files, then take them in."""
    for path in args.files:
        records.read(path)
    for path in args.files:
        print(plain(str(records.add(path, args.records_dir))))
    return 0


def check_records(args: argparse.Namespace) -> int:
    """Read every record; print what is wrong with each bad one."""
    paths, bad = sorted(folder_of_records(args.records_dir).glob("*.json")), 0
    for path in paths:
        try:
            if path.is_symlink():
                raise DcilError(f"{path} is a link; a record is a file of its own")
            if (run_id := records.read(path)["run_id"]) != path.stem:
                raise DcilError(f"{path} holds the run {run_id}; name it {run_id}.json")
        except DcilError as error:
            bad += 1
            print(f"dcil: error: {plain(str(error))}", file=sys.stderr)
    print(f"{len(paths)} record(s) in {args.records_dir}, {bad} bad")
    return 2 if bad else 0


def diff_records(args: argparse.Namespace) -> int:
    """Print two records side by side."""
    a, b = (compare.find(name, args.records_dir) for name in (args.A, args.B))
    print(table(("what", a["run_id"], b["run_id"], "difference"), compare.side_by_side(a, b)))
    same = compare.same(a, b)
    print("the same but for clocks, memory and date" if same else "they differ")
    return 0 if same else 1


def print_schema(args: argparse.Namespace) -> int:
    """Print the JSON Schema of a run record."""
    print(json.dumps(schema.json_schema(), indent=1))
    return 0


# --- authors


def authors_parser(commands: Any) -> None:
    """Add `authors fetch` and `authors check`."""
    actions, names = group(commands, "authors", "fetch and measure the authors' checkpoints"), (*authors.KNOWN, "all")
    fetching = command(actions, "fetch", fetch_authors, "download one checkpoint or all, checksum verified")
    fetching.add_argument("name", metavar="CHECKPOINT", choices=names, help=" | ".join(names))
    fetching.add_argument("--to", metavar="D", type=Path, help="folder to put them in [authors, in the data folder]")
    checking = command(actions, "check", check_authors, "measure both passes on CIFAR; exit code 1 if not as expected")
    checking.add_argument("files", metavar="FILE", nargs="+", type=Path, help="an authors' .pth, or its arrays as .npz")
    checking.add_argument("--data-dir", metavar="D", help="folder of the data sets [DCIL_DATA, else data]")


def fetch_authors(args: argparse.Namespace) -> int:
    """Download checkpoints and print where they lie."""
    for name in authors.KNOWN if args.name == "all" else [args.name]:
        print(authors.fetch(name, args.to or data.data_folder() / "authors"), flush=True)
    return 0


def check_authors(args: argparse.Namespace) -> int:
    """Measure checkpoints and print the figures beside the expected ones, where the file's name is known."""
    networks, rows = {path: authors.load(path) for path in args.files}, []
    for path, dual in networks.items():
        dataset = data.load("cifar100" if dual.net.fc.out_features == 100 else "cifar10", args.data_dir)
        known, found = authors.known_name(path), authors.evaluate(dual, dataset)
        wanted = authors.expected(known) if known else {}
        rows += [(path.name, key, value, wanted.get(key, "unknown")) for key, value in found.items()]
    print(table(("file", "figure", "found", "expected"), rows))
    return int(any(wanted not in (found, "unknown") for *_, found, wanted in rows))


# --- chapter


def chapter_parser(commands: Any) -> None:
    """Add `chapter`."""
    parser = command(commands, "chapter", run_chapter, "execute a chapter of the book with other parameters")
    parser.add_argument("name", metavar="NAME", help="its number, name or file, e.g. 03")
    parser.add_argument("-p", metavar=("NAME", "VALUE"), nargs=2, action="append", default=[], dest="given",
                        help="set a parameter; may be repeated")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="where the executed notebook goes [_build/chapters/NAME.ipynb]")


def run_chapter(args: argparse.Namespace) -> int:
    """Execute a chapter, say where the result is, and note beside it when and on what it was made."""
    notebook, started = chapters.find(args.name), time.monotonic()
    out = Path(args.out or chapters.root() / "_build" / "chapters" / notebook.name)
    given = {name: chapters.parse(value) for name, value in args.given}
    print(chapters.execute(notebook, out, given))
    book = chapters.root() / "book"
    if notebook.resolve().parent == book and out.resolve().parent != book:  # what is committed holds no clock
        status.write(notebook, out, given, started, chapters.root())
    return 0


# --- queue


def queue_parser(commands: Any) -> None:
    """Add `queue`."""
    summary = "run what is missing of a grid, most urgent first; call it again and again"
    parser = command(commands, "queue", work_queue, summary)
    parser.add_argument("grid", metavar="GRID", type=Path, help="a file such as experiments/quick.yaml")
    parser.add_argument("--status", action="store_true", help="only say what is done, partial and missing")
    parser.add_argument("--only", metavar="RUN", nargs="+", default=[], help="only these run ids, or their beginnings")
    parser.add_argument("--minutes", metavar="M", type=float, help="stop in time, with checkpoints [no limit]")
    parser.add_argument("--pack", metavar="K", type=int, default=1, help="runs at a time on this machine [1]")
    parser.add_argument("--separate", action=argparse.BooleanOptionalAction, default=None,
                        help="a process for each, not a thread [CPU: processes; GPU: threads]")  # fmt: skip
    parser.add_argument("--precision", metavar="NAME", choices=PRECISIONS, help="every run in this precision, not the "
                        f"grid's: {' | '.join(PRECISIONS)}")  # fmt: skip
    parser.add_argument("--data-dir", metavar="D", help="folder of the data sets [DCIL_DATA, else data]")
    parser.add_argument("--runs-dir", metavar="D", type=Path, default="runs", help="[runs]")
    parser.add_argument("--records-dir", metavar="D", type=Path, default="records", help="[records]")


def planned_runs(args: argparse.Namespace) -> list[grid.Planned]:
    """Return the runs of the grid, or those asked for; raises `DcilError` for one it does not have."""
    runs = grid.read(args.grid, args.precision)
    for name in args.only:
        if not any(run.run_id.startswith(name) for run in runs):
            raise DcilError(f"{args.grid} has no run {name}; `--status` lists its runs")
    return [run for run in runs if not args.only or run.run_id.startswith(tuple(args.only))]


def work_queue(args: argparse.Namespace) -> int:
    """Work through a grid, or say how far it is; exit code 0: all done, 1: a run failed, 75: some is left."""
    if args.pack < 1:
        raise DcilError(f"--pack is {args.pack}; it must be at least 1")
    runs = planned_runs(args)
    if any(emulates(run.config) for run in runs):
        print("dcil: this grid asks for bf16, for which this device has no instructions. Emulated, on a CPU, it is "
              "twelve times slower. --precision float32 trains the grid in float32; those records are compared among "
              "themselves", file=sys.stderr)  # fmt: skip
    if not args.status:
        outcomes = queue.work(runs, records_dir=args.records_dir, runs_dir=args.runs_dir, data_dir=args.data_dir,
                              minutes=args.minutes, pack=args.pack, separate=args.separate)  # fmt: skip
    statuses = grid.status(runs, args.records_dir, args.runs_dir)
    if args.status:
        rows = [(s.planned.priority, s.planned.run_id, s.state, f"{s.epochs:.2f} of {s.planned.config.epochs}",
                 "?" if math.isnan(s.left_s) else f"{s.left_s / 60:.0f} min", "; ".join(s.planned.serves))
                for s in statuses]  # fmt: skip
        print(table(("priority", "run", "state", "epochs", "left", "serves"), rows))
    print(grid.summary(statuses))
    if args.status or all(s.state == "done" for s in statuses):
        return 0
    return 1 if any(outcome.startswith("failed") for outcome in outcomes.values()) else TRY_AGAIN


PARSERS = (records_parser, queue_parser, authors_parser, chapter_parser)
