"""Load a finished run, or an authors' checkpoint, as a plain network with its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dcil import authors, records
from dcil.config import ResolvedConfig, RunConfig
from dcil.data import datasets
from dcil.data.loaders import feed_of, loaders_of
from dcil.dual_path import DualPath
from dcil.errors import DcilError
from dcil.export.formats import Card, Network
from dcil.io.files import expanded
from dcil.runs import RunFolder, by_id
from dcil.trainer import build

CALIBRATION = 8  # batches of 64 images on which int8 measures activations


def card_of(run_id: str, config: ResolvedConfig, num_classes: int, dual: DualPath, state: Mapping[str, Any]) -> Card:
    """Return the card of a network trained with a configuration; classes without known names are numbered.

    `state` is the run's checkpoint, which names the data that the run was given. For older checkpoints and for authors'
    files, the data set is assumed to be the configuration's. Raises `DcilError` for images that are not square.
    """
    known = datasets.get(config.dataset)
    side = known.side or config.image_size
    feed = state.get("feed") or feed_of(known, (side, side), cropped=known.is_folder)
    height, width = feed["size"]
    if height != width:
        raise DcilError(
            f"{run_id} takes images of {height} × {width} pixels, and only networks of square images are exported; "
            "train it on square images"
        )
    classes = state.get("classes") or (known.classes if feed["dataset"] == known.name else ())
    return Card(
        run_id=run_id,
        model=config.model,
        num_classes=num_classes,
        classes=tuple(classes) if len(classes) == num_classes else tuple(map(str, range(num_classes))),
        sparsity=round(dual.sparsity(), 6),
        dataset=feed["dataset"],
        side=height,
        short=feed["short"],
        mean=tuple(feed["mean"]),
        std=tuple(feed["std"]),
    )


def find_run(name: str, runs_dir: str | Path) -> Path:
    """Return a finished run's folder, given its path, its id, a prefix of the id or its hash."""
    if ((folder := expanded(name)) / "record.json").is_file():
        return folder
    known = {path.parent.name: path.parent for path in sorted(expanded(runs_dir).glob("*/record.json"))}
    return by_id(name, known, f"finished run in {runs_dir}")


def network(source: str, runs_dir: str | Path = "runs", dense: bool = False) -> tuple[nn.Module, Card, ResolvedConfig]:
    """Return the plain network of a finished run, or of an authors' .pth or .npz, its card and configuration.

    With `dense`, the network is that of the last pass: the dense network, where the method trains one.
    Raises `DcilError` for a run that does not exist or is not finished, and for a damaged file.
    """
    if source.endswith((".pth", ".npz")):
        dual = authors.load(source)
        classes = authors.num_classes(dual)
        rows = [mask.flatten(1) for mask in dual.masks.values()]
        scope = "filter" if all((row.any(1) == row.all(1)).all() for row in rows) else "global"
        config = RunConfig(dataset=f"cifar{classes}", model="resnet32", scope=scope, sparsity=dual.sparsity()).resolve()
        return plain(dual, dense), card_of(Path(source).stem, config, classes, dual, {}), config
    folder = find_run(source, runs_dir)
    record = records.read(folder / "record.json")
    config, classes = ResolvedConfig.from_dict(record["config"]), record["data"]["num_classes"]
    if record["run_id"] != folder.resolve().name:
        raise DcilError(
            f"{folder} has the record of {record['run_id']}; a run's folder must be named by the run id. Rename it "
            "if it was moved, and leave it if it was filled with another run's files"
        )
    if record["status"] != "complete":
        raise DcilError(f"{record['run_id']} failed; there is nothing to export")
    state = RunFolder(folder.resolve().parent, config).network_state(record)
    dual = build(replace(config, sync_batchnorm=False), classes)
    dual.load_state_dict(state["model"])
    card = card_of(record["run_id"], config, classes, dual, state)
    return plain(dual, dense), card, config


def plain(dual: DualPath, dense: bool) -> nn.Module:
    """Return the network of the first pass, or with `dense` of the last, in float32 and eval mode."""
    return dual.export(dual.pass_names[-1 if dense else 0]).float().eval()


def calibration(config: ResolvedConfig, card: Card, data_dir: str | None) -> list[Tensor]:
    """Return `CALIBRATION` batches of training images, normalised.

    Raises `DcilError` if the data set is missing, and for a run on a data set of your own.
    """
    if card.dataset != config.dataset:
        raise DcilError(
            f"int8 needs training images, and {card.run_id} was trained on {card.dataset!r}, which only you have; in "
            "Python: dcil.export.save(net, card, path, to='int8', calibration=batches)"
        )
    dataset = datasets.load(config.dataset, data_dir)
    config = replace(config, batch_size=64, seed=0)
    loader, _ = loaders_of(dataset, config, torch.device("cpu"), torch.float32)
    return [batch for batch, _ in islice(loader.epoch(0), CALIBRATION)]


@torch.no_grad()
def predict(net: Network, card: Card, pixels: np.ndarray) -> list[tuple[str, float]]:
    """Return every class with its probability, most likely first, for an image uint8 [H, W, 3]."""
    chances = net(card.prepare(pixels)).softmax(1)[0]
    return [(card.classes[i], float(chances[i])) for i in chances.argsort(descending=True).tolist()]
