"""A trained network as a file for other machines: dense, sparse, shrunk, ONNX or int8.

Every file carries a card: the run it comes from, its sparsity and its input format. Loading an untrusted
file runs no code, and a damaged file is refused with an error that names it.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dcil import models
from dcil.checkpoint import read_torch, torch_bytes
from dcil.data.crops import LARGEST_SIDE, central_sample
from dcil.errors import DcilError, reason, unknown
from dcil.export.onnx_files import OnnxNetwork, write_int8, write_onnx
from dcil.export.shrink import Kept, shrink
from dcil.io.files import expanded, write_atomically
from dcil.io.messages import say

SCHEMA = 1
ENDINGS = {"state_dict": "pt", "sparse": "sparse.pt", "shrunk": "shrunk.pt", "onnx": "onnx", "int8": "int8.onnx"}
IN_TORCH = ("state_dict", "sparse", "shrunk")  # the others are ONNX
MOST_CLASSES = 2**16  # ImageNet has 21,841 at most
#: Largest allowed difference between the outputs of a file and of the network, relative to the largest output where
#: that exceeds 1; None: int8 outputs differ by design.
TOLERANCE = {"state_dict": 0.0, "sparse": 0.0, "shrunk": 1e-5, "onnx": 1e-4, "int8": None}

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Card:
    """The metadata of an exported network: where it comes from, and its input and output format.

    An image is resized to the short side `short`, its central `side` × `side` taken, divided by 255,
    and normalised by `mean` and `std` per channel. Input: float32 [N, 3, side, side]; output:
    logits [N, classes].
    """

    run_id: str
    model: str
    num_classes: int
    classes: tuple[str, ...]
    sparsity: float
    dataset: str
    side: int
    short: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def prepare(self, pixels: np.ndarray) -> Tensor:
        """Return an image, uint8 [H, W, 3], as network input, float32 [1, 3, side, side]."""
        image = central_sample(torch.from_numpy(pixels.copy()).permute(2, 0, 1), self.side, self.short)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return ((image / 255 - mean) / std)[None]

    @classmethod
    def from_dict(cls, values: Any) -> Card:
        """Build from a file's content; raises `KeyError`, `TypeError` or `ValueError` if it is not a card."""
        kinds: dict[str, Callable[[Any], Any]] = {
            "str": str,
            "int": int,
            "float": float,
            "tuple[str, ...]": lambda items: tuple(map(str, items)),
            "tuple[float, ...]": lambda items: tuple(map(float, items)),
        }
        kind_of = {known.name: kinds[str(known.type)] for known in fields(cls)}
        card = cls(**{name: kind_of[name](value) for name, value in dict(values).items()})
        if len(card.classes) != card.num_classes or not len(card.mean) == len(card.std) == 3:
            raise ValueError("the card must name every class, and a mean and std for each of three channels")
        if not (
            1 <= card.num_classes <= MOST_CLASSES
            and 1 <= card.side <= card.short <= 2 * card.side
            and card.side <= LARGEST_SIDE
        ):
            raise ValueError(f"the card has {card.num_classes} classes, side {card.side} and short {card.short}")
        if not (
            0 <= card.sparsity < 1 and all(map(math.isfinite, card.mean)) and all(0 < s < math.inf for s in card.std)
        ):
            raise ValueError("the card must have a sparsity in [0, 1), and finite means and positive finite stds")
        return card


# --- state dicts, plain and sparse


def pack(state: dict[str, Tensor]) -> dict[str, Any]:
    """Return a state dict with each weight as a bitmap and its nonzeros: a bit per weight, 4 bytes per nonzero."""

    def packed(tensor: Tensor) -> Any:
        if tensor.dim() < 2 or not tensor.is_floating_point():
            return tensor
        there = tensor != 0
        bits = torch.from_numpy(np.packbits(there.cpu().numpy().ravel()))
        return {"shape": list(tensor.shape), "there": bits, "values": tensor[there].cpu()}

    return {name: packed(tensor) for name, tensor in state.items()}


def unpack(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the state dict that `dcil.export.pack` was given, bit-exact but for -0.0, which becomes 0.0.

    Raises `ValueError` for a bitmap that does not fit its tensor.

    >>> state = {"weight": torch.tensor([[0.0, 1.5], [0.0, 0.0]])}
    >>> torch.equal(unpack(pack(state))["weight"], state["weight"])
    True
    """

    def unpacked(value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value
        shape, values = value["shape"], value["values"]
        count = math.prod(shape)
        # This bounds the memory by the bitmap in the file, whatever the shape says.
        if value["there"].untyped_storage().nbytes() != -(-count // 8) or min(shape, default=1) < 0:
            raise ValueError(f"a bitmap of {value['there'].numel()} bytes is not that of a tensor {list(shape)}")
        there = torch.from_numpy(np.unpackbits(value["there"].numpy(), count=count)).bool().view(shape)
        full = values.new_zeros(shape)
        full[there] = values
        return full

    return {name: unpacked(value) for name, value in state.items()}


# --- writing and reading, any format


def save(net: nn.Module, card: Card, path: str | Path, to: str, calibration: Iterable[Tensor] | None = None) -> float:
    """Write a plain network with its card in a format of `ENDINGS`, read it back and compare outputs.

    The network may be on any device and of any precision; the file has it in float32. Returns the largest absolute
    difference between the outputs of the file and of the network. "int8" needs `calibration`, batches of normalised
    training images; the other formats ignore it. Raises `DcilError` when the outputs differ by more than `TOLERANCE`
    allows; then nothing is written.

    >>> import tempfile
    >>> net = models.build("resnet8", num_classes=10).eval()
    >>> card = Card("my-run", "resnet8", 10, tuple("0123456789"), 0.0, "digits", 32, 32, (0.5,) * 3, (0.5,) * 3)
    >>> path = Path(tempfile.mkdtemp()) / "net.sparse.pt"
    >>> save(net, card, path, to="sparse")
    0.0
    >>> loaded, card = load(path)
    >>> images = torch.zeros(1, 3, 32, 32)
    >>> torch.equal(loaded(images), net(images)), card.run_id
    (True, 'my-run')
    """
    if to not in ENDINGS:
        raise unknown("format", to, ENDINGS)
    path, said = expanded(path), json.dumps(asdict(card))
    net = copy.deepcopy(net).to("cpu", torch.float32).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.0)  # turns -0.0, which masking makes of negative weights, into 0.0
    apart = 0.0

    def write(part: Path) -> None:
        nonlocal apart
        if to == "onnx":
            write_onnx(net, card.side, said, part)
        elif to == "int8":
            if calibration is None:
                raise DcilError("int8 needs images to measure activations on; give training images")
            write_int8(net, card.side, said, part, calibration)
        else:
            content: dict[str, Any] = {"schema": SCHEMA, "format": to, "card": asdict(card)}
            if to == "shrunk":
                small, plan = shrink(net)
                content |= {"state": small.state_dict(), "plan": {k: asdict(v) for k, v in plan.items()}}
            else:
                content["state"] = pack(net.state_dict()) if to == "sparse" else net.state_dict()
            part.write_bytes(torch_bytes(content))
        apart = difference(net, card, part, to)

    try:
        write_atomically(path, write)
    except OSError as error:
        raise DcilError(
            f"{path} could not be written: {reason(error)}. Nothing was left behind; make room, or choose "
            "another folder"
        ) from error
    return apart


@torch.no_grad()
def difference(net: nn.Module, card: Card, path: Path, to: str) -> float:
    """Return the largest difference between a file's outputs and a network's; raises `DcilError` beyond `TOLERANCE`."""
    images = torch.randn(4, 3, card.side, card.side, generator=torch.Generator().manual_seed(0))
    loaded, _ = load(path, is_onnx=to not in IN_TORCH)
    outputs = net(images)
    apart, size = (float(of.abs().max()) for of in (loaded(images) - outputs, outputs))
    share = TOLERANCE[to]
    if share is not None and not apart <= (most := share * max(size, 1.0)):
        raise DcilError(
            f"the file in format {to} gives outputs that differ by up to {apart:.2g} from the network's, more than "
            f"{most:g}; nothing was written"
        )
    return apart


def load(path: str | Path, is_onnx: bool | None = None) -> tuple[Network, Card]:
    """Return the network of an exported file, in eval mode, and its card; no code in the file is run.

    The network takes float32 [N, 3, side, side], normalised as the card says, and gives logits [N, classes].
    Raises `dcil.DcilError` naming the file, which is left untouched, when it is absent, damaged or was not written by
    `dcil export`. See `dcil.export.save` for an example.
    """
    path = expanded(path)
    if not path.is_file():
        raise DcilError(f"there is no file {path}")
    try:
        if path.suffix == ".onnx" if is_onnx is None else is_onnx:
            return _load_onnx(path)
        return _load_torch(path)
    except DcilError:
        raise
    except Exception as error:  # damaged bytes can make the readers fail in any way
        why = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise DcilError(f"{path} cannot be read as an exported network ({why:.120}). It was left as it is") from error


def _load_onnx(path: Path) -> tuple[Network, Card]:
    """Return the network of an ONNX file and its card; a file without a checksum is named on stderr."""
    network = OnnxNetwork(path)
    if network.card is None:
        raise DcilError(f"{path} is ONNX but has no card of dcil; export it with `python -m dcil export`")
    if not network.is_sealed:
        say(
            f"dcil: {path} has no checksum, since an earlier dcil wrote it; damage to it goes undetected. "
            "Export it again"
        )
    return network, Card.from_dict(json.loads(network.card))


def _load_torch(path: Path) -> tuple[Network, Card]:
    """Return the network of a file of `torch.save`, whole, sparse or shrunk, in eval mode, and its card."""
    content = read_torch(path)
    if not isinstance(content, dict) or "card" not in content:  # a checkpoint, or another network's weights
        raise DcilError(f"{path} was not written by `python -m dcil export`, which makes such a file from a run")
    if content["schema"] > SCHEMA:
        raise DcilError(f"{path} has schema {content['schema']}, this dcil reads up to {SCHEMA}; update dcil")
    if content["format"] not in IN_TORCH:
        raise unknown("format", content["format"], IN_TORCH)
    card = Card.from_dict(content["card"])
    net, state = models.build(card.model, card.num_classes), content["state"]
    if content["format"] == "shrunk":
        net = shrink(net, {name: _kept(k) for name, k in content["plan"].items()})[0]
    net.load_state_dict(unpack(state) if content["format"] == "sparse" else state)
    return net.eval(), card


def _kept(plan: dict[str, Any]) -> Kept:
    """Return the kept filters of a file's plan; raises `ValueError` for repeats, of which there could be any number."""
    filters = tuple(plan["filters"])
    if list(filters) != sorted(set(filters)) or min(filters, default=0) < 0:
        raise ValueError("the plan must name filters in order, each once")
    return Kept(filters, plan["ones"])
