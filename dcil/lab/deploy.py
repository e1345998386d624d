"""From a finished run, or an authors' checkpoint, to a file on a device: `export` and `predict`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dcil import data, export, images, records
from dcil.arguments import command, table
from dcil.config import FOLDERS, RunConfig
from dcil.crops import RESIZE
from dcil.decoding import decode
from dcil.errors import DcilError
from dcil.export import Card
from dcil.lab import authors
from dcil.lab.compare import by_id
from dcil.loaders import loaders_of
from dcil.paths import DualPath
from dcil.runs import RunFolder
from dcil.trainer import build

CALIBRATION = 8  # batches of 64 images on which int8 measures activations
NORMS = {"digits": (data.DIGITS_MEAN, data.DIGITS_STD), "cifar10": (data.CIFAR_MEAN, data.CIFAR_STD),
         "cifar100": (data.CIFAR_MEAN, data.CIFAR_STD)}  # fmt: skip
CLASSES = {"digits": tuple("0123456789"), "cifar10": data.CIFAR10_CLASSES,
           "imagenette": tuple(images.KNOWN["imagenette"].names.values())}  # fmt: skip


def card_of(run_id: str, config: RunConfig, num_classes: int, dual: DualPath, classes: tuple[str, ...] = ()) -> Card:
    """Return the card of a network trained by a configuration; classes without known names are numbers."""
    mean, std = NORMS.get(config.dataset, (images.MEAN, images.STD))
    side = config.image_size if config.dataset in FOLDERS else 32
    names = classes or CLASSES.get(config.dataset) or tuple(map(str, range(num_classes)))
    short = round(side * RESIZE) if config.dataset in FOLDERS else side
    return Card(run_id, config.model, num_classes, names, round(dual.sparsity(), 6), config.dataset,
                side, short, mean, std)  # fmt: skip


def find_run(name: str, runs_dir: str | Path) -> Path:
    """Return a finished run's folder, given its path, its id, the beginning of that or its hash."""
    if (Path(name) / "record.json").is_file():
        return Path(name)
    known = {path.parent.name: path.parent for path in sorted(Path(runs_dir).glob("*/record.json"))}
    return by_id(name, known, f"finished run of {runs_dir}")


def network(source: str, runs_dir: str | Path = "runs", dense: bool = False) -> tuple[nn.Module, Card, RunConfig]:
    """Return the plain network of a finished run, or of an authors' .pth or .npz, its card and configuration.

    With `dense` it is the last pass's: the dense twin, where the method trains one.

    Raises `DcilError` for a run that is not there or not finished, and for a damaged file.
    """
    if source.endswith((".pth", ".npz")):
        dual = authors.load(source)
        classes = dual.net.fc.out_features
        rows = [mask.flatten(1) for mask in dual.masks.values()]
        scope = "filter" if all((row.any(1) == row.all(1)).all() for row in rows) else "global"
        config = RunConfig(dataset=f"cifar{classes}", model="resnet32", scope=scope, sparsity=dual.sparsity()).resolve()
        return plain(dual, dense), card_of(Path(source).stem, config, classes, dual), config
    folder = find_run(source, runs_dir)
    record = records.read(folder / "record.json")
    config, classes = RunConfig.from_dict(record["config"]), record["data"]["num_classes"]
    if record["run_id"] != folder.resolve().name:
        raise DcilError(f"{folder} has the record of {record['run_id']}; a run's folder has the run's name. Rename it "
                        "if it was moved, and leave it if it was filled with another run's files")  # fmt: skip
    if record["status"] != "complete":
        raise DcilError(f"{record['run_id']} failed; there is nothing to export")
    state = RunFolder(folder.resolve().parent, config).network_state()
    dual = build(replace(config, sync_batchnorm=False), classes)
    dual.load_state_dict(state["model"])
    card = card_of(record["run_id"], config, classes, dual, tuple(state.get("classes", ())))
    return plain(dual, dense), card, config


def plain(dual: DualPath, dense: bool) -> nn.Module:
    """Return the network as its first pass sees it, or its last, in float32, for inference."""
    return dual.export(dual.pass_names[-1 if dense else 0]).float().eval()


def calibration(config: RunConfig, data_dir: str | None) -> list[Tensor]:
    """Return some batches of training images, normalised; raises `DcilError` where the data set is not there."""
    dataset = data.load(config.dataset, data_dir)
    config = replace(config, batch_size=64, seed=0)
    loader, _ = loaders_of(dataset, config, torch.device("cpu"), torch.float32)
    return [batch for batch, _ in islice(loader.epoch(0), CALIBRATION)]


# --- the command line


def export_parser(commands: Any) -> None:
    """Add `export`."""
    parser = command(commands, "export", run_export, "write a trained network as a file for other machines, checked")
    parser.add_argument("source", metavar="RUN", help="a finished run: its id, the beginning of that, its hash or its "
                        "folder; or an authors' .pth or .npz")  # fmt: skip
    parser.add_argument("--to", metavar="FORMAT", nargs="+", choices=tuple(export.ENDINGS), default=["state_dict"],
                        help=" | ".join(export.ENDINGS) + ", one or more [state_dict]")  # fmt: skip
    parser.add_argument("--out", metavar="D", type=Path, default=Path("exports"), help="folder of the files [exports]")
    parser.add_argument("--runs-dir", metavar="D", default="runs", help="[runs]")
    parser.add_argument("--data-dir", metavar="D", help="folder of the data sets, for int8 [DCIL_DATA, else data]")


def run_export(args: argparse.Namespace) -> int:
    """Write the files, each read back and compared, and say how large they are and how close."""
    net, card, config = network(args.source, args.runs_dir)
    print(f"{card.run_id}: {card.model}, sparsity {card.sparsity:.4f}, takes [N, 3, {card.side}, {card.side}]")
    rows = []
    for to in args.to:
        path = args.out / f"{card.run_id}.{export.ENDINGS[to]}"
        images = calibration(config, args.data_dir) if to == "int8" else None
        apart = export.save(net, card, path, to, images)
        rows.append((to, f"{path.stat().st_size / 2**10:.0f} KiB", f"{apart:.2g}", path))
    print(table(("format", "size", "outputs differ by up to", "file"), rows))
    return 0


def predict_parser(commands: Any) -> None:
    """Add `predict`."""
    parser = command(commands, "predict", run_predict, "classify a picture with an exported network")
    parser.add_argument("image", metavar="IMAGE", help="a picture, of any size")
    parser.add_argument("--from", metavar="FILE", dest="file", type=Path, required=True, help="what `export` wrote")
    parser.add_argument("--top", metavar="K", type=int, default=5, help="how many classes to show [5]")


@torch.no_grad()
def predict(net: export.Network, card: Card, pixels: np.ndarray) -> list[tuple[str, float]]:
    """Return every class with its probability, the likeliest first, of an image uint8 [H, W, 3]."""
    chances = net(card.prepare(pixels)).softmax(1)[0]
    return [(card.classes[i], float(chances[i])) for i in chances.argsort(descending=True).tolist()]


def run_predict(args: argparse.Namespace) -> int:
    """Print the likeliest classes of a picture."""
    net, card = export.load(args.file)
    likely = predict(net, card, decode(args.image)[0])
    print(f"{args.image}, by {card.run_id} (sparsity {card.sparsity:.2f})")
    for name, chance in likely[: max(1, args.top)]:
        print(f"{chance:7.1%}  {'█' * round(30 * chance):30}  {name}")
    return 0


PARSERS = (export_parser, predict_parser)
