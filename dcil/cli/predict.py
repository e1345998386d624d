"""`predict`: classify a picture with an exported network."""

from __future__ import annotations

import argparse
from typing import Any

from dcil.cli.options import as_path, command
from dcil.data.decoding import decode
from dcil.export import formats
from dcil.export.trained_run import predict


def add_parser(commands: Any) -> None:
    """Add `predict`."""
    parser = command(commands, "predict", run_predict, "classify a picture with an exported network")
    parser.add_argument("image", metavar="IMAGE", help="a picture, of any size")
    parser.add_argument("--from", metavar="FILE", dest="file", type=as_path, required=True, help="output of `export`")
    parser.add_argument("--top", metavar="K", type=int, default=5, help="how many classes to show [5]")


def run_predict(args: argparse.Namespace) -> int:
    """Print the most likely classes of a picture."""
    net, card = formats.load(args.file)
    likely = predict(net, card, decode(args.image)[0])
    print(f"{args.image}, by {card.run_id} (sparsity {card.sparsity:.2f})")
    for name, chance in likely[: max(1, args.top)]:
        print(f"{chance:7.1%}  {'█' * round(30 * chance):30}  {name}")
    return 0
