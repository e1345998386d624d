"""`train`: one run, from its configuration to its record."""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch

from dcil import machine, records
from dcil.cli.options import add_config_options, as_path, command, values_of_config
from dcil.config import PRESETS, RunConfig, emulates, preset
from dcil.runs import RunFolder
from dcil.stopping import stop_at_eof
from dcil.train import fit


def add_parser(commands: Any) -> None:
    """Add `train`, with one option for each field of `RunConfig`."""
    parser = command(commands, "train", train, "train one run; the same command resumes an interrupted run")
    where = parser.add_argument_group("where things are")
    where.add_argument("--data-dir", metavar="D", help="folder of the data sets [DCIL_DATA, else data]")
    where.add_argument("--download", action="store_true", help="download CIFAR or Imagenette into it if missing")
    where.add_argument(
        "--runs-dir", metavar="D", type=as_path, default="runs", help="folder of checkpoints and records [runs]"
    )
    where.add_argument("--records-dir", metavar="D", type=as_path, help="also add the finished record to this folder")
    where.add_argument("--no-resume", action="store_true", help="start from scratch and replace the run's files")
    how = parser.add_argument_group("how it runs", "none of these changes a number")
    how.add_argument("--max-minutes", metavar="M", type=float, help="time limit; stops with a checkpoint [no limit]")
    how.add_argument(
        "--until-eof",
        action="store_true",
        help="stop, with a checkpoint, when standard input closes, as it does when the parent process ends",
    )
    how.add_argument(
        "--workers",
        metavar="N",
        type=int,
        help="processes that prepare a folder's images [CPU: 0; GPU: its share of cores]",
    )
    how.add_argument(
        "--decoded-gib",
        metavar="G",
        type=float,
        default=10.0,
        help="cache a folder's decoded images under --runs-dir if they fit; 0: never [10]",
    )
    how.add_argument("--eager", action="store_true", help="on a GPU: eager steps, no CUDA graph, one stream")
    how.add_argument("--quiet", action="store_true", help="no progress, only the run and its result")
    what = parser.add_argument_group("the run", "options not given take the preset's value, else the default shown")
    what.add_argument("--preset", metavar="NAME", help=" | ".join(PRESETS))
    add_config_options(what)


def train(args: argparse.Namespace) -> int:
    """Print the device and the run, train it, print its result."""
    if args.until_eof:
        stop_at_eof()
    given = values_of_config(args)
    config = (preset(args.preset, **given) if args.preset else RunConfig.from_dict(given)).resolve()
    record_path = RunFolder(args.runs_dir, config).record
    device = machine.require(config.device)
    words = f"device {machine.device_name(device)} ({config.device}), precision {config.precision}"
    if emulates(config):
        words += " (emulated: this device has no bf16 instructions, float32 would be faster)"
    elif args.preset and not args.precision and config.precision != PRESETS[args.preset].get("precision", "float32"):
        words += f" (the preset's {PRESETS[args.preset]['precision']} would be emulated on this device, slower)"
    leads = os.environ.get("RANK", "0") == "0"  # under torchrun only rank 0 prints
    if leads:
        print(f"{words}, {torch.get_num_threads()} thread(s)\nrun {config.run_id}", flush=True)
    before = record_path.stat().st_mtime_ns if record_path.exists() else None
    record = fit(
        config,
        data_dir=args.data_dir,
        download=args.download,
        runs_dir=args.runs_dir,
        resume=not args.no_resume,
        progress=not args.quiet,
        max_minutes=args.max_minutes,
        fast=not args.eager,
        workers=args.workers,
        decoded_gib=args.decoded_gib,
    )
    if not leads:
        return 0
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
