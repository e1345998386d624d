"""`export`: write a trained network as a file for other machines."""

from __future__ import annotations

import argparse
from typing import Any

from dcil.cli.options import as_path, command, table
from dcil.export import formats
from dcil.export.trained_run import calibration, network


def add_parser(commands: Any) -> None:
    """Add `export`."""
    parser = command(commands, "export", run_export, "write a trained network as a file for other machines; verify it")
    parser.add_argument(
        "source",
        metavar="RUN",
        help="a finished run: its id, a prefix of it, its hash or its folder; or an authors' .pth or .npz",
    )
    parser.add_argument(
        "--to",
        metavar="FORMAT",
        nargs="+",
        choices=tuple(formats.ENDINGS),
        default=["state_dict"],
        help=" | ".join(formats.ENDINGS) + ", one or more [state_dict]",
    )
    parser.add_argument("--out", metavar="D", type=as_path, default="exports", help="folder of the files [exports]")
    parser.add_argument("--runs-dir", metavar="D", type=as_path, default="runs", help="[runs]")
    parser.add_argument("--data-dir", metavar="D", help="folder of the data sets, for int8 [DCIL_DATA, else data]")


def run_export(args: argparse.Namespace) -> int:
    """Write the files, read each back to compare its outputs, and print file sizes and differences."""
    net, card, config = network(args.source, args.runs_dir)
    print(f"{card.run_id}: {card.model}, sparsity {card.sparsity:.4f}, takes [N, 3, {card.side}, {card.side}]")
    rows = []
    for to in args.to:
        path = args.out / f"{card.run_id}.{formats.ENDINGS[to]}"
        images = calibration(config, card, args.data_dir) if to == "int8" else None
        apart = formats.save(net, card, path, to, images)
        rows.append((to, f"{path.stat().st_size / 2**10:.0f} KiB", f"{apart:.2g}", path))
    print(table(("format", "size", "outputs differ by up to", "file"), rows))
    return 0
