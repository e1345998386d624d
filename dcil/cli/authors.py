"""`authors`: fetch and evaluate the authors' checkpoints."""

from __future__ import annotations

import argparse
from typing import Any

from dcil import authors
from dcil.cli.options import as_path, command, group, table
from dcil.data import datasets


def add_parser(commands: Any) -> None:
    """Add `authors fetch` and `authors check`."""
    actions, names = group(commands, "authors", "fetch and evaluate the authors' checkpoints"), (*authors.KNOWN, "all")
    fetching = command(actions, "fetch", fetch_authors, "download one checkpoint or all, checksum verified")
    fetching.add_argument("name", metavar="CHECKPOINT", choices=names, help=" | ".join(names))
    fetching.add_argument("--to", metavar="D", type=as_path, help="folder to save to [authors, in the data folder]")
    checking = command(actions, "check", check_authors, "evaluate both passes on CIFAR; exit code 1 if not as expected")
    checking.add_argument(
        "files", metavar="FILE", nargs="+", type=as_path, help="an authors' .pth, or its arrays as .npz"
    )
    checking.add_argument("--data-dir", metavar="D", help="folder of the data sets [DCIL_DATA, else data]")


def fetch_authors(args: argparse.Namespace) -> int:
    """Download checkpoints and print their paths."""
    for name in authors.KNOWN if args.name == "all" else [args.name]:
        print(authors.fetch(name, args.to or datasets.data_folder() / "authors"), flush=True)
    return 0


def check_authors(args: argparse.Namespace) -> int:
    """Evaluate checkpoints and print the results beside the expected ones, where the checkpoint is known."""
    networks, rows = {path: authors.load(path) for path in args.files}, []
    for path, dual in networks.items():
        dataset = datasets.cifar(f"cifar{authors.num_classes(dual)}", args.data_dir)
        known, found = authors.known_name(path), authors.evaluate(dual, dataset)
        wanted = authors.expected(known) if known else {}
        rows += [(path.name, key, value, wanted.get(key, "unknown")) for key, value in found.items()]
    print(table(("file", "figure", "found", "expected"), rows))
    return int(any(wanted not in (found, "unknown") for *_, found, wanted in rows))
