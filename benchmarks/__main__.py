"""Speed and memory, as ratios of variants measured in turns. On a machine that is busy with other things the ratios
still hold, within their quartiles; the seconds beside them do not."""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path

import torch

from benchmarks.bench import Bench, Row
from benchmarks.cases import BENCHMARKS
from dcil import machine
from dcil.cli.options import Parser, as_path, refuse_unknown, table
from dcil.config import RunConfig
from dcil.data import datasets
from dcil.data.datasets import Dataset
from dcil.errors import DcilError
from dcil.io.files import write_atomically
from dcil.lab.tables.targets import read_targets
from dcil.models import MODELS

HERE = Path(__file__).parent
COLUMNS = ("name", "case", "baseline", "model", "batch_size", "median_s", "baseline_s", "ratio", "ratio_q1", "ratio_q3",
           "rounds", "mem_mib", "baseline_mib", "recipe_epochs", "how", "data", "device", "kind", "threads",
           "others", "malloc", "torch", "date", "commit", "dirty")  # fmt: skip
FEW = 2048, 500  # images for steps alone


def build_parser() -> Parser:
    """Return the parser of the command line."""
    listing = "; ".join(f"{name}: {act.__doc__}" for name, act in BENCHMARKS.items())
    parser = Parser(prog="python -m benchmarks", description=__doc__, epilog=f"Benchmarks: {listing}.")
    parser.add_argument(
        "--only",
        metavar="BENCHMARK",
        nargs="+",
        choices=BENCHMARKS,
        default=list(BENCHMARKS),
        help=f"{', '.join(BENCHMARKS)} [all]",
    )
    parser.add_argument("--rounds", metavar="N", type=int, default=9, help="turns of each variant, at least 2 [9]")
    parser.add_argument("--threads", metavar="N", type=int, default=torch.get_num_threads(), help="[%(default)s]")
    parser.add_argument("--device", metavar="DEVICE", choices=("auto", "cpu", "cuda"), default="auto", help="[auto]")
    parser.add_argument("--model", metavar="MODEL", choices=MODELS, default="resnet32", help="[resnet32]")
    parser.add_argument("--batch-size", metavar="N", type=int, default=128, help="images a step [128]")
    parser.add_argument("--data-dir", metavar="D", help="folder of the data sets [DCIL_DATA, else data]")
    parser.add_argument("--out", metavar="FOLDER", type=as_path, default=HERE / "results", help="[benchmarks/results]")
    return parser


def images(data_dir: str | None) -> Dataset:
    """Return CIFAR-10, or noise of the same shape if it is not there, which is reported."""
    try:
        return datasets.cifar("cifar10", data_dir)
    except DcilError as error:
        print(f"random images stand in: {error}")
    noise = [torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8) for n in (50_000, 10_000)]
    labels = [torch.randint(10, (len(part),)) for part in noise]
    return Dataset("random", noise[0], labels[0], noise[1], labels[1], 10, datasets.CIFAR_MEAN, datasets.CIFAR_STD)


def others_cpu_s() -> float:
    """Return the CPU seconds that the whole machine has spent, minus those of this process and its children."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]]
    except OSError:  # not Linux
        return float("nan")
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def facts(bench: Bench) -> Row:
    """Return the columns that say on what, when and at which commit a row was measured."""
    commit, dirty = machine.source_state()
    return {
        "device": machine.device_name(torch.device(bench.device)),
        "kind": bench.device,
        "threads": bench.threads,
        "malloc": os.environ.get("GLIBC_TUNABLES", ""),
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat("T", "seconds"),
        "commit": commit,
        "dirty": dirty,
    }


def new_file(folder: Path, where: Row) -> Path:
    """Return a path that does not exist yet, named after the machine and the day."""
    device = re.sub(r"[^a-z0-9]+", "-", where["device"].lower()).strip("-")
    stem = f"{device}-{where['threads']}t-torch{where['torch'].partition('+')[0]}-{where['date'][:10]}"
    names = chain([stem], (f"{stem}-{i}" for i in count(2)))
    return next(path for name in names if not (path := folder / f"{name}.csv").exists())


def write(rows: list[Row], path: Path) -> None:
    """Write the rows so far, whole or not at all."""

    def fill(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            lines = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            lines.writeheader()
            lines.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)

    write_atomically(path, fill)


def verdicts(rows: list[Row], kind: str) -> list[tuple[str, str, str, str]]:
    """Return one row for each target: what, measured, bound, met; targets not run, or for another device, say so."""
    lines = []
    for target in read_targets(HERE / "targets.yaml"):
        found = [row[target.column] for row in rows if target.kind == kind and target.place.items() <= row.items()]
        value = found[0] if found else None
        absent = "not run: needs a GPU" if target.kind == "cuda" and kind != "cuda" else "not run"
        measured = absent if value is None else f"{value:.3g}"
        lines.append((f"{target.kind}: {target.target}", measured, target.bound(), target.met(value)))
    return lines


def shown(row: Row) -> str:
    """Return a row as one line of text."""
    sizes = f"{row['model']}, {row['batch_size']}"
    pair = ("median_s", "baseline_s", "s") if "median_s" in row else ("mem_mib", "baseline_mib", "MiB")
    case, baseline, unit = (row.get(key, key) for key in pair)
    return (
        f"{row['name']:8} {row['case']} / {row['baseline']} ({sizes}): {row['ratio']:.3g} "
        f"({row['ratio_q1']:.3g} to {row['ratio_q3']:.3g}), {case:.4g} / {baseline:.4g} {unit}"
    )


def measure(args: argparse.Namespace) -> int:
    """Run the benchmarks, write their rows, and compare them with the targets."""
    for name, least in (("rounds", 2), ("threads", 1), ("batch_size", 1)):
        if getattr(args, name) < least:
            raise DcilError(f"{name} is {getattr(args, name)}; it must be at least {least}")
    device = machine.require(RunConfig(device=args.device).resolve().device).type
    torch.set_num_threads(args.threads)
    dataset = images(args.data_dir)
    few = replace(
        dataset,
        train_images=dataset.train_images[: FEW[0]],
        train_labels=dataset.train_labels[: FEW[0]],
        test_images=dataset.test_images[: FEW[1]],
        test_labels=dataset.test_labels[: FEW[1]],
    )
    bench = Bench(device, args.threads, args.rounds, args.model, args.batch_size, dataset, few, args.data_dir)
    where, rows = facts(bench), []
    path = new_file(args.out, where)
    print(f"{where['device']} ({device}), {args.threads} thread(s), {args.rounds} rounds, images: {dataset.name}")
    began, others, share = time.perf_counter(), others_cpu_s(), 0.0
    for name in dict.fromkeys(args.only):
        for row in BENCHMARKS[name](bench):
            now, spent = time.perf_counter(), others_cpu_s()
            if now - began > 1:  # otherwise the row is from the same measurement as the one before
                share = (spent - others) / ((now - began) * (os.cpu_count() or 1))
                began, others = now, spent
            rows.append({"name": name} | row | where | {"others": share})
            print(shown(rows[-1]), flush=True)
            write(rows, path)  # after every row, so that nothing is lost if the rest is interrupted
    print("", table(("target", "measured", "wanted", "met"), verdicts(rows, device)), "", sep="\n")
    if rows:
        busy = max(row["others"] for row in rows)
        print(f"results {path}; other processes had up to {busy:.0%} of this machine's cores meanwhile")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 for what a person can mend."""
    try:
        parser = build_parser()
        args, extra = parser.parse_known_args(argv)
        refuse_unknown(parser, extra)
        return measure(args)
    except (DcilError, OSError) as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
