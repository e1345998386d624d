"""The command line: `python -m dcil COMMAND`. A command is one function and the parser that calls it.

Whatever a person can mend ends in one line, `dcil: error: ...`, and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dcil import data, methods, models, records
from dcil.arguments import Parser, add_config_options, command, group, refuse_unknown, table, values_of_config
from dcil.config import DATASETS, PRESETS, RunConfig, preset
from dcil.engine import device_name
from dcil.errors import DcilError
from dcil.lab import authors, chapters
from dcil.train import fit

# --- train


def train_parser(commands: Any) -> None:
    """Add `train`, with one option for each field of `RunConfig`."""
    parser = command(commands, "train", train, "train one run; interrupted, it resumes with the same command")
    where = parser.add_argument_group("where things are")
    where.add_argument("--data-dir", metavar="D", help="folder of the data sets [DCIL_DATA, else data]")
    where.add_argument("--download", action="store_true", help="fetch CIFAR into it if it is missing")
    where.add_argument("--runs-dir", metavar="D", default="runs", help="folder of checkpoints and records [runs]")
    where.add_argument("--records-dir", metavar="D", help="take the finished record in here as well")
    where.add_argument("--no-resume", action="store_true", help="start anew and replace the run's files")
    where.add_argument("--quiet", action="store_true", help="no progress, only what was run and where it ended")
    what = parser.add_argument_group("the run", "options not given come from the preset, else have the default shown")
    what.add_argument("--preset", metavar="NAME", help=" | ".join(PRESETS))
    add_config_options(what)


def train(args: argparse.Namespace) -> int:
    """Say what runs on what, train it, say where it ended."""
    given = values_of_config(args)
    config = (preset(args.preset, **given) if args.preset else RunConfig.from_dict(given)).resolve()
    record_path = Path(args.runs_dir) / config.run_id / "record.json"
    print(f"device {device_name(torch.device(config.device))} ({config.device}), precision {config.precision}, "
          f"{torch.get_num_threads()} thread(s)\nrun {config.run_id}", flush=True)  # fmt: skip
    before = record_path.stat().st_mtime_ns if record_path.exists() else None
    try:
        record = fit(config, data_dir=args.data_dir, download=args.download, runs_dir=args.runs_dir,
                     resume=not args.no_resume, progress=not args.quiet)  # fmt: skip
    except KeyboardInterrupt:
        less = " less --no-resume" if args.no_resume else ""
        print(f"\ndcil: interrupted; the same command{less} resumes after the last whole epoch", file=sys.stderr)
        return 130
    if before == record_path.stat().st_mtime_ns:
        print("this run was complete already; nothing was trained")
    for name, end in record["final"]["passes"].items():
        best = end["best_at_target"]
        beside = "never at the target sparsity"
        if best:
            beside = f"best at target {best['top1']:.2f} %, epoch {best['epoch'] + 1}, chosen on the test set"
        print(f"{name} pass: top-1 {end['last']['top1']:.2f} % at the last epoch ({beside})")
    print(f"sparsity {record['curve'][-1]['sparsity']:.4f}, {record['cost']['time_s']:.1f} s\nrecord {record_path}")
    if args.records_dir:
        print(f"taken in as {records.add(record_path, args.records_dir)}")
    return 0


# --- records


def records_parser(commands: Any) -> None:
    """Add `records list`, `records add` and `records check`."""
    actions = group(commands, "records", "list, take in or check run records")
    listing = command(actions, "list", list_records, "one line for each record")
    choices = {"dataset": DATASETS, "method": sorted(methods.METHODS), "tier": ("smoke", "quick", "paper")}
    for name, allowed in choices.items():
        listing.add_argument(f"--{name}", metavar=name.upper(), choices=allowed, help=" | ".join(allowed))
    adding = command(actions, "add", add_records, "check records of any machine and take them in, never overwriting")
    adding.add_argument("files", metavar="FILE", nargs="+", type=Path)
    for action in (listing, adding):
        action.add_argument("--records-dir", metavar="D", type=Path, default="records", help="[records]")
    checking = command(actions, "check", check_records, "check every record of a folder and name the bad ones")
    checking.add_argument("records_dir", metavar="DIR", nargs="?", type=Path, default="records", help="[records]")


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
                     f"{r['cost']['time_s'] / 3600:.2f}"))  # fmt: skip
    if rows:
        print(table(("run", "tier", "status", "device", "seed", "last top-1, %", "hours"), rows))
    print(f"{len(rows)} record(s) in {args.records_dir}" + "".join(f", {k} {v}" for k, v in asked.items()))
    return 0


def add_records(args: argparse.Namespace) -> int:
    """Check all the files, then take them in."""
    for path in args.files:
        records.read(path)
    for path in args.files:
        print(records.add(path, args.records_dir))
    return 0


def check_records(args: argparse.Namespace) -> int:
    """Read every record; print what is wrong with each bad one."""
    paths, bad = sorted(folder_of_records(args.records_dir).glob("*.json")), 0
    for path in paths:
        try:
            if (run_id := records.read(path)["run_id"]) != path.stem:
                raise DcilError(f"{path} holds the run {run_id}; name it {run_id}.json")
        except DcilError as error:
            bad += 1
            print(f"dcil: error: {error}", file=sys.stderr)
    print(f"{len(paths)} record(s) in {args.records_dir}, {bad} bad")
    return 2 if bad else 0


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


# --- methods, models


def lists_parser(commands: Any) -> None:
    """Add `methods` and `models`."""
    command(commands, "methods", list_methods, "list the training methods")
    command(commands, "models", list_models, "list the networks")


def list_methods(args: argparse.Namespace) -> int:
    """Print each method, its passes' gradient rules and where it comes from."""
    rows = [(m.name, " + ".join(m.rules), m.summary, m.source) for m in methods.METHODS.values()]
    print(table(("method", "gradient rules", "what it is", "source"), rows))
    return 0


def list_models(args: argparse.Namespace) -> int:
    """Print each network, its size with ten classes and what its blocks are."""
    rows = []
    for name in models.MODELS:
        with torch.device("meta"):  # shapes only
            net = models.build(name, 10)
        blocks = [m for m in net.modules() if isinstance(m, (models.BasicBlock, models.Bottleneck, models.PreActBlock))]
        summary = (type(blocks[0]).__doc__ or "").partition(";")[0].rstrip(".")
        rows.append((name, f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M", len(blocks), summary))
    print(table(("model", "parameters", "blocks", "a block"), rows))
    return 0


# --- chapter


def chapter_parser(commands: Any) -> None:
    """Add `chapter`."""
    parser = command(commands, "chapter", run_chapter, "execute a chapter of the book with other parameters")
    parser.add_argument("name", metavar="NAME", help="its number, name or file, e.g. 03")
    parser.add_argument("-p", metavar=("NAME", "VALUE"), nargs=2, action="append", default=[], dest="given",
                        help="set a parameter; may be repeated")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="where the executed notebook goes [_build/chapters/NAME.ipynb]")


def run_chapter(args: argparse.Namespace) -> int:
    """Execute a chapter and say where the result is."""
    notebook = chapters.find(args.name)
    out = args.out or chapters.root() / "_build" / "chapters" / notebook.name
    print(chapters.execute(notebook, out, {name: chapters.parse(value) for name, value in args.given}))
    return 0


COMMANDS = (train_parser, records_parser, authors_parser, chapter_parser, lists_parser)


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(prog="python -m dcil", description="Dual-path sparse training, and the records of its runs.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for what a person can mend, 130 when interrupted."""
    try:
        args, extra = build_parser().parse_known_args(argv)
        refuse_unknown(args.parser, extra)
        return args.run(args)
    except (DcilError, OSError) as error:
        print(f"dcil: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ndcil: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
