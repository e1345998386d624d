"""The command line: `python -m dcil COMMAND`. A command is one function and the parser that calls it.

Whatever a person can mend ends in one line, `dcil: error: ...`, and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import torch

from dcil import machine, methods, models, records
from dcil.arguments import Parser, add_config_options, command, refuse_unknown, table, values_of_config
from dcil.config import PRESETS, RunConfig, emulates, preset
from dcil.errors import DcilError
from dcil.intake import plain
from dcil.lab import commands, deploy, living
from dcil.runs import RunFolder
from dcil.stopping import Stop, Stopped, stop_at_eof
from dcil.train import fit

# --- train


def train_parser(commands: Any) -> None:
    """Add `train`, with one option for each field of `RunConfig`."""
    parser = command(commands, "train", train, "train one run; interrupted, it resumes with the same command")
    where = parser.add_argument_group("where things are")
    where.add_argument("--data-dir", metavar="D", help="folder of the data sets [DCIL_DATA, else data]")
    where.add_argument("--download", action="store_true", help="fetch CIFAR or Imagenette into it if it is missing")
    where.add_argument("--runs-dir", metavar="D", default="runs", help="folder of checkpoints and records [runs]")
    where.add_argument("--records-dir", metavar="D", help="take the finished record in here as well")
    where.add_argument("--no-resume", action="store_true", help="start anew and replace the run's files")
    how = parser.add_argument_group("how it runs", "none of these changes a number")
    how.add_argument("--max-minutes", metavar="M", type=float, help="stop in time, with a checkpoint [no limit]")
    how.add_argument("--until-eof", action="store_true",
                     help="stop, with a checkpoint, when standard input ends: whoever began this is gone")  # fmt: skip
    how.add_argument("--workers", metavar="N", type=int,
                     help="processes that prepare a folder's images [CPU: 0; GPU: its share of cores]")  # fmt: skip
    how.add_argument("--decoded-gib", metavar="G", type=float, default=10.0,
                     help="keep a folder's images decoded under --runs-dir if they fit; 0: never [10]")  # fmt: skip
    how.add_argument("--eager", action="store_true", help="on a GPU: plain steps, no CUDA graph, one stream")
    how.add_argument("--quiet", action="store_true", help="no progress, only what was run and where it ended")
    what = parser.add_argument_group("the run", "options not given come from the preset, else have the default shown")
    what.add_argument("--preset", metavar="NAME", help=" | ".join(PRESETS))
    add_config_options(what)


def train(args: argparse.Namespace) -> int:
    """Say what runs on what, train it, say where it ended."""
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
    leads = os.environ.get("RANK", "0") == "0"  # under torchrun one process talks
    if leads:
        print(f"{words}, {torch.get_num_threads()} thread(s)\nrun {config.run_id}", flush=True)
    before = record_path.stat().st_mtime_ns if record_path.exists() else None
    record = fit(config, data_dir=args.data_dir, download=args.download, runs_dir=args.runs_dir,
                 resume=not args.no_resume, progress=not args.quiet, max_minutes=args.max_minutes,
                 fast=not args.eager, workers=args.workers, decoded_gib=args.decoded_gib)  # fmt: skip
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
        kinds = {kind.__name__: kind for kind in (models.BasicBlock, models.Bottleneck, models.PreActBlock)}
        blocks = [m for m in net.modules() if type(m).__name__ in kinds]  # torchvision's have the same names
        summary = (kinds[type(blocks[0]).__name__].__doc__ or "").partition(";")[0].rstrip(".")
        rows.append((name, f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M", len(blocks), summary))
    print(table(("model", "parameters", "blocks", "a block"), rows))
    return 0


COMMANDS = (train_parser, *deploy.PARSERS, *commands.PARSERS, *living.PARSERS, lists_parser)


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(prog="python -m dcil", description="Dual-path sparse training, and the records of its runs.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0, 2 for what a person can mend, 69 for a run that another process trains, 75 for a time limit that came first, 129,
    130 and 143 when interrupted, 141 when its reader left.
    """
    try:
        args, extra = build_parser().parse_known_args(argv)
        refuse_unknown(args.parser, extra)
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as in `| head`, which has read enough; the flush at exit must not fail either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, as a shell says it
    except Stopped as stopped:
        print(f"dcil: {stopped}", file=sys.stderr)
        return stopped.code
    except UnicodeEncodeError as error:
        print(f"dcil: error: {error.object[error.start : error.end]!r} is not UTF-8; rename what has it in its name",
              file=sys.stderr)  # fmt: skip
        return 2
    except (DcilError, OSError) as error:
        print(f"dcil: error: {plain(str(error))}", file=sys.stderr)  # one line, whatever a file's name holds
        return getattr(error, "code", 2)
    except ModuleNotFoundError as error:
        if (name := str(error.name).partition(".")[0]) == "dcil":
            raise
        print(f"dcil: error: this command needs the package {name}, which is not installed; in the book's folder: "
              "python -m pip install -e '.[book]'", file=sys.stderr)  # fmt: skip
        return 2
    except KeyboardInterrupt as error:
        number = next(iter(error.args), signal.SIGINT)  # Stop names the signal
        print(f"\ndcil: interrupted by {Stop.SIGNALS[number]}", file=sys.stderr)
        return 128 + number


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a file's name may be no UTF-8
    sys.exit(main())
