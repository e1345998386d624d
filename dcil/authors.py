"""The authors' released ResNet-32 checkpoints: fetch them, load them as a `DualPath`, evaluate both passes.

Source: Jangho-Kim/DCIL-pytorch at commit 28f81d2. `authors_checkpoints.json` holds, for each known
checkpoint, its path and SHA-256 in that repository and its expected results on the official test sets.
"""

from __future__ import annotations

import http.client
import json
import sys
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dcil import models
from dcil.checkpoint import read_torch
from dcil.config import RunConfig
from dcil.data.datasets import Dataset
from dcil.data.loaders import TestLoader
from dcil.dual_path import DualPath
from dcil.engine import Engine
from dcil.errors import DcilError, unknown
from dcil.io.files import expanded, open_regular, sha256, write_atomically
from dcil.metrics import evaluate as evaluate_passes

BASE_URL = "https://raw.githubusercontent.com/Jangho-Kim/DCIL-pytorch/28f81d20bb06700df0bf1fcd6a51ca81ed99bb82"
KNOWN: dict[str, dict[str, Any]] = json.loads(resources.files(__package__).joinpath("authors_checkpoints.json")
                                              .read_text(encoding="utf-8"))  # fmt: skip

WAIT_S = 60  # timeout for a silent server; `torch.hub.download_url_to_file` would wait forever
MOST_BYTES = 2**26  # for all arrays of a file; ResNet-32 and its masks take 4 MiB
MOST_CLASSES = 1000  # CIFAR has 10 or 100
# How their layer names map to ours: (their ending, our ending, whether the layer belongs to the dense pass).
ENDINGS = (
    (".downsample_conv", ".shortcut.0", False),
    (".downsample_p", ".shortcut.1", False),
    (".downsample_f", ".shortcut.1", True),
    ("_part", "", False),
    ("_full", "", True),
)


def known_name(path: str | Path) -> str | None:
    """Return the name in `KNOWN` of a checkpoint file, recognised by checksum or the end of its file name, or None."""
    path = Path(path)
    digest = sha256(path)
    known = (name for name, k in KNOWN.items() if path.stem.endswith(name) or digest == k["sha256_of_source"])
    return next(known, None)


def expected(name: str) -> dict[str, Any]:
    """Return the result that `evaluate` must give for a checkpoint in `KNOWN`."""
    known = KNOWN[name]
    return {"sparse": known["top1_sparse"], "dense": known["top1_dense"]} | {k: known[k] for k in ("kept", "prunable")}


def our_key(theirs: str) -> str:
    """Return the key in a `DualPath`'s state dict for the key `theirs` of the authors' state dict."""
    layer, _, leaf = theirs.rpartition(".")
    dense = False
    for ending, ours, is_dense in ENDINGS:
        if layer.endswith(ending):
            layer, dense = layer.removesuffix(ending) + ours, is_dense
            break
    if leaf == "mask":
        return f"_masks.{layer.replace('.', '/')}/weight"
    return f"own.0.{layer.replace('.', '/')}.{leaf}" if dense else f"net.{layer}.{leaf}"


def _state_dicts(content: Any) -> Iterator[dict[str, Any]]:
    """Yield the candidates for the state dict: the file's content, then each value one level down."""
    for candidate in (content, *(content.values() if isinstance(content, dict) else ())):
        if isinstance(candidate, dict):
            yield {str(key).removeprefix("module."): value for key, value in candidate.items()}


def read(path: str | Path) -> dict[str, Tensor]:
    """Return the arrays of an authors' file (.npz or .pth) by the authors' names, on the CPU.

    Raises `DcilError` naming the file, which is left untouched, when it is absent, damaged or holds no
    such state dict.
    """
    path = expanded(path)
    try:
        if path.suffix == ".npz":
            content: Any = _arrays(path)
        else:
            content = read_torch(path)
    except FileNotFoundError as error:
        raise DcilError(f"there is no checkpoint {path}") from error
    except DcilError:
        raise
    except Exception as error:  # damaged bytes can make the readers fail in any way
        raise DcilError(
            f"{path} cannot be read ({type(error).__name__}); it should be one of the authors' .pth "
            "files or its arrays as .npz. It was left as it is"
        ) from error
    state = next((s for s in _state_dicts(content) if isinstance(s.get("conv1.weight"), Tensor)), None)
    if state is None:
        raise DcilError(
            f"{path} holds no 'conv1.weight', on top or one level down; it is not one of the authors' "
            "checkpoints. It was left as it is"
        )
    return state


def _arrays(path: Path) -> dict[str, Tensor]:
    """Return the arrays of an .npz file; raises `DcilError` if they would unpack to more than `MOST_BYTES`."""
    with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
        unpacked = sum(entry.file_size for entry in arrays.zip.infolist())
        if unpacked > MOST_BYTES:
            raise DcilError(
                f"{path} would unpack to {unpacked / 2**20:,.0f} MiB; one of the authors' has at most "
                f"{MOST_BYTES / 2**20:.0f}. It was left as it is"
            )
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def load(path: str | Path) -> DualPath:
    """Return an authors' ResNet-32, from .pth or .npz, as a `DualPath` with DCIL's sparse and dense pass.

    The number of classes is taken from the sparse head. Raises `DcilError` naming the missing and the unexpected keys,
    tensors of a wrong shape, and masks with values other than 0 and 1.
    """
    state = read(path)
    head = state.get("fc_part.weight")
    heads = len(head) if isinstance(head, Tensor) and head.dim() == 2 and len(head) <= MOST_CLASSES else 10
    dual = DualPath(models.resnet32(num_classes=heads))
    wanted = {key: value for key, value in dual.state_dict().items() if key != "_extra_state"}
    found = {our_key(theirs): (theirs, value) for theirs, value in state.items()}
    unused = [t for ours, (t, v) in found.items() if ours not in wanted or not isinstance(v, Tensor)]
    missing = [ours for ours in wanted if ours not in found]
    both = {ours: found[ours] for ours in wanted if ours in found and isinstance(found[ours][1], Tensor)}
    shapes = [
        f"{t} {tuple(v.shape)}, expected {tuple(wanted[ours].shape)}"
        for ours, (t, v) in both.items()
        if v.shape != wanted[ours].shape
    ]
    not_masks = [t for t, v in both.values() if t.endswith(".mask") and not ((v == 0) | (v == 1)).all()]
    problems = [
        f"{what}: {_some(names)}"
        for what, names in (
            ("not in ResNet-32", unused),
            ("missing", missing),
            ("other shape", shapes),
            ("not a mask of 0 and 1", not_masks),
        )
        if names
    ]
    if problems:
        raise DcilError(f"{path} is not an authors' ResNet-32. {'; '.join(problems)}. It was left as it is")
    dual.load_state_dict({ours: v.to(wanted[ours].dtype) for ours, (_, v) in both.items()}, strict=False)
    dual.target_sparsity = dual.sparsity()  # the files do not record the target sparsity
    return dual


def num_classes(dual: DualPath) -> int:
    """Return the number of classes of an authors' network, from its head."""
    net: Any = dual.net
    return net.fc.out_features


def evaluate(dual: DualPath, dataset: Dataset) -> dict[str, Any]:
    """Return test top-1 of each pass in percent, and the number of kept and of all prunable weights.

    Evaluates in float32, on the GPU if there is one; `dual` is moved there. Raises `DcilError` when its head and the
    data set differ in the number of classes.
    """
    heads = num_classes(dual)
    if heads != dataset.num_classes:
        raise DcilError(f"the network has {heads} classes, but {dataset.name} has {dataset.num_classes}")
    engine, training = Engine(RunConfig(precision="float32", channels_last=True).resolve()), dual.training
    test, placed = TestLoader(dataset, engine.device, engine.dtype), engine.place(dual)
    with engine.on_stream():
        top = evaluate_passes(placed, dual.pass_names, test, engine)
    dual.train(training)
    masks = dual.masks.values()
    counts = {"kept": sum(int(m.sum()) for m in masks), "prunable": sum(m.numel() for m in masks)}
    return {name: value["top1"] for name, value in top.items()} | counts


def fetch(name: str, folder: str | Path, base_url: str = BASE_URL) -> Path:
    """Download an authors' checkpoint to `folder`/NAME.pth, unless it is already there, and return its path.

    Raises `DcilError` for an unknown name, when the download fails or has a wrong checksum
    (nothing is left behind), and when a different file has that name (it is never overwritten).
    """
    if name not in KNOWN:
        raise unknown("checkpoint", name, KNOWN)
    path, digest = expanded(folder) / f"{name}.pth", KNOWN[name]["sha256_of_source"]
    url = f"{base_url.rstrip('/')}/{KNOWN[name]['source']}"
    if path.exists():
        if path.is_file() and sha256(path) == digest:
            return path
        raise DcilError(
            f"{path} already exists and is not {url} (SHA-256 {digest}); nothing was overwritten. "
            "Move it away or choose another folder"
        )

    def download(part: Path) -> None:
        try:
            with urllib.request.urlopen(url, timeout=WAIT_S) as reply, part.open("wb") as file:
                size = int(reply.headers.get("Content-Length") or 0) or None
                with tqdm(
                    None, name, size, unit="B", unit_scale=True, leave=False, disable=None, file=sys.stderr
                ) as bar:
                    while block := reply.read(1 << 16):
                        file.write(block)
                        bar.update(len(block))
        except (OSError, http.client.HTTPException) as error:
            raise DcilError(f"{url} could not be fetched: {error}. Try again, or download it by hand") from error
        if (came := sha256(part)) != digest:
            raise DcilError(
                f"{url} is not what was expected: {part.stat().st_size:,} bytes with SHA-256 {came}, "
                f"expected {digest}. Nothing was kept"
            )

    write_atomically(path, download)
    return path
