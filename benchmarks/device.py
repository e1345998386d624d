"""What sparsity buys on a small device: bytes, MACs, memory, accuracy and latency of trained networks, a CSV of each.

    python -m benchmarks.device RUN [RUN ...]

A RUN is what `python -m dcil export` takes. Latencies are of variants that take turns in one run.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.bench import in_turns, peak_allocated_mib
from benchmarks.sparse_conv import with_csr
from dcil import cost, machine
from dcil.cli.options import Parser, as_path, refuse_unknown
from dcil.data import datasets
from dcil.data.loaders import loaders_of
from dcil.errors import DcilError
from dcil.export import formats, trained_run
from dcil.export.formats import Card, Network
from dcil.export.onnx_files import OnnxNetwork, write_onnx
from dcil.export.shrink import shrink
from dcil.io.files import write_atomically
from dcil.metrics import Batches

HERE = Path(__file__).parent
BATCHES = 1, 64
CPU = torch.device("cpu")
Row = dict[str, object]


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog="python -m benchmarks.device", description=__doc__.partition("\n")[0])
    parser.add_argument("sources", metavar="RUN", nargs="+", help="a finished run, or an authors' .pth or .npz")
    parser.add_argument("--rounds", metavar="N", type=int, default=7, help="turns of each variant [7]")
    parser.add_argument("--threads", metavar="N", type=int, nargs="+", default=[1, 2], help="[1 2]")
    parser.add_argument("--runs-dir", metavar="D", type=as_path, default="runs", help="[runs]")
    parser.add_argument("--data-dir", metavar="D", help="folder of the data sets [DCIL_DATA, else data]")
    parser.add_argument("--out", metavar="FOLDER", type=as_path, default=HERE / "device", help="[benchmarks/device]")
    return parser


def sizes(files: dict[str, Path]) -> Iterator[Row]:
    """Yield the size of each file in bytes, plain and gzipped."""
    for name, path in files.items():
        raw = path.read_bytes()
        yield {"what": "bytes", "variant": name, "value": len(raw)}
        yield {"what": "bytes", "variant": f"{name}, gzip", "value": len(gzip.compress(raw, 9, mtime=0))}


def shape(variants: dict[str, nn.Module], side: int) -> Iterator[Row]:
    """Yield MACs per image, all and those of nonzero weights; parameters; and peak memory of a forward pass."""
    for name, net in variants.items():
        macs = cost.layer_macs(net, torch.zeros(1, 3, side, side)).values()
        yield {"what": "MACs", "variant": name, "value": sum(m[0] for m in macs)}
        yield {"what": "MACs of nonzeros", "variant": name, "value": sum(m[1] for m in macs)}
        yield {"what": "parameters", "variant": name, "value": sum(p.numel() for p in net.parameters())}
        for batch in BATCHES:
            images = torch.zeros(batch, 3, side, side)
            yield {
                "what": "peak activations, MiB",
                "variant": name,
                "batch": batch,
                "value": peak_allocated_mib(partial(forward, net, images)),
            }


@torch.no_grad()
def forward(net: Network, images: Tensor) -> Tensor:
    """Run a network."""
    return net(images)


def accuracy(net: Network, test: Batches) -> float:
    """Return top-1 on the test set, in percent."""
    hits = [(forward(net, images).argmax(1) == labels) for images, labels in test]
    return 100 * float(torch.cat(hits).double().mean())


def latency(variants: dict[str, Network], side: int, threads: int, rounds: int) -> Iterator[Row]:
    """Yield the seconds of a forward pass by variant and batch size."""
    for batch in BATCHES:
        images = torch.randn(batch, 3, side, side)
        acts = {name: partial(forward, net, images) for name, net in variants.items()}
        times = in_turns(acts, rounds, threads, f"{threads} thread(s), batch {batch}")
        for name, seconds in times.items():
            ratios = pd.Series([a / b for a, b in zip(times["dense"], seconds, strict=True)])
            low, middle, high = ratios.quantile([0.25, 0.5, 0.75])
            yield {
                "what": "latency, s",
                "variant": name,
                "batch": batch,
                "threads": threads,
                "value": pd.Series(seconds).median(),
                "speedup": middle,
                "speedup_q1": low,
                "speedup_q3": high,
            }


def measure(source: str, args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Yield all rows of one network; its exported files are written into `folder`."""
    net, card, config = trained_run.network(source, args.runs_dir)
    dense = trained_run.network(source, args.runs_dir, dense=True)[0]
    small, _ = shrink(net)
    batches = trained_run.calibration(config, card, args.data_dir)
    files = {}
    for to, ending in formats.ENDINGS.items():
        files[to] = folder / f"{card.run_id}.{ending}"
        apart = formats.save(net, card, files[to], to, batches)
        yield {"what": "largest difference", "variant": to, "value": apart}
    yield from sizes(files)
    yield from shape({"dense": dense, "masked": net, "shrunk": small}, card.side)
    _, test = loaders_of(datasets.load(config.dataset, args.data_dir), config, CPU, torch.float32)
    torch.set_num_threads(max(args.threads))
    for name, network in (("masked", net), ("int8", OnnxNetwork(files["int8"]))):
        yield {"what": "top-1, %", "variant": name, "value": accuracy(network, test)}
    onnx = {"onnxruntime, dense": dense, "onnxruntime, masked": net, "onnxruntime, shrunk": small}
    for name, module in onnx.items():
        write_onnx(module, card.side, "{}", folder / f"{name}.onnx")
    for threads in args.threads:
        torch.set_num_threads(threads)
        variants: dict[str, Network] = {
            "dense": dense,
            "masked": net,
            "shrunk": small,
            "CSR, PyTorch": with_csr(net, "torch"),
            "CSR, SciPy": with_csr(net, "scipy"),
        }
        variants |= {name: OnnxNetwork(folder / f"{name}.onnx", threads) for name in onnx}
        variants["onnxruntime, int8"] = OnnxNetwork(files["int8"], threads)
        same(variants, net, card)
        yield from latency(variants, card.side, threads, args.rounds)


def same(variants: dict[str, Network], net: nn.Module, card: Card) -> None:
    """Raise `DcilError` if a variant that must compute the same outputs does not: a fast wrong kernel is no result."""
    images = torch.randn(4, 3, card.side, card.side)
    wanted = forward(net, images)
    for name, variant in variants.items():
        apart = float((forward(variant, images) - wanted).abs().max() / wanted.abs().max())
        if "dense" not in name and "int8" not in name and apart > 1e-4:
            raise DcilError(f"{name} is {apart:.2g} apart from the network of {card.run_id}; it must compute the same")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 for what a person can mend."""
    try:
        parser = build_parser()
        args, extra = parser.parse_known_args(argv)
        refuse_unknown(parser, extra)
        commit, dirty = machine.source_state()
        where = {
            "device": machine.device_name(CPU),
            "torch": torch.__version__,
            "commit": commit,
            "dirty": dirty,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        }
        for source in args.sources:
            _, card, config = trained_run.network(source, args.runs_dir)
            about = {k: v for k, v in asdict(card).items() if k in ("run_id", "model", "dataset", "sparsity", "side")}
            about["scope"] = config.scope
            with tempfile.TemporaryDirectory() as folder:
                rows = pd.DataFrame([about | row | where for row in measure(source, args, Path(folder))])
            path = args.out / f"{card.run_id}.csv"
            write_atomically(path, partial(rows.to_csv, index=False, float_format="%.10g"))
            print(path, flush=True)
        return 0
    except (DcilError, OSError) as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
