"""ONNX files: written by PyTorch's exporter, quantised to int8 and run by onnxruntime."""

from __future__ import annotations

import hashlib
import importlib
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dcil.errors import DcilError

OPSET = 20
CARD = "dcil"  # the metadata key of the card
SEALED = "dcil.seal"  # the metadata key that announces a checksum at the end of the file
# The start of one more metadata entry in protobuf's encoding (field 14 of the model): a key, and a value of 64 digits.
_SEAL = b"\x72\x4e\x0a\x0adcil.check\x12\x40"


def sealed(payload: bytes) -> bytes:
    """Return an ONNX file with its SHA-256 appended; other programs see one more metadata entry."""
    return payload + _SEAL + hashlib.sha256(payload).hexdigest().encode()


def is_whole(raw: bytes) -> bool | None:
    """Return whether a file matches the checksum at its end; None if it has none."""
    payload, seal = raw[: -len(_SEAL) - 64], raw[-len(_SEAL) - 64 :]
    return raw == sealed(payload) if seal.startswith(_SEAL) else None


def needs(name: str) -> Any:
    """Import a module of the `export` extra; raises `DcilError` when it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DcilError(f"{error.name} is needed here but not installed: pip install 'dcil[export]'") from error


def write_onnx(net: nn.Module, side: int, card: str, path: Path) -> None:
    """Write a network with input [N, 3, side, side] as ONNX, with its card as metadata; N is dynamic."""
    onnx = needs("onnx")
    needs("onnxscript")
    example = torch.randn(2, 3, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # from PyTorch's exporter, about PyTorch itself
        program = torch.onnx.export(
            net,
            (example,),
            input_names=["images"],
            output_names=["logits"],
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    _write(onnx, program.model_proto, card, path)


def _write(onnx: Any, made: Any, card: str, path: Path) -> None:
    """Write an `onnx.ModelProto` with its card and checksum."""
    onnx.helper.set_model_props(made, {CARD: card, SEALED: "sha256"})
    path.write_bytes(sealed(made.SerializeToString()))


def write_int8(net: nn.Module, side: int, card: str, path: Path, calibration: Iterable[Tensor]) -> None:
    """Write a network as int8 ONNX: weights with one scale per filter, activations with a scale from `calibration`.

    Weights use seven of their eight bits: x86 processors without VNNI add two products in 16 bits, where full-range
    weights would saturate silently (onnxruntime's documentation on quantization, `reduce_range`).
    """
    onnx, quantization = needs("onnx"), needs("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]  # imported when needed
        batches = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (Path(folder) / name for name in ("plain.onnx", "ready.onnx", "small.onnx"))
        write_onnx(net, side, card, plain)
        needs("onnxruntime.quantization.shape_inference").quant_pre_process(str(plain), str(ready))
        quantization.quantize_static(
            str(ready),
            str(small),
            Reader(),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
        )  # fastest on x86
        _write(onnx, onnx.load(small), card, path)


class OnnxNetwork:
    """An ONNX file as a function of images [N, 3, H, W] to logits [N, classes], run by onnxruntime on the CPU.

    Raises `DcilError` naming the file if it is damaged or has other inputs or outputs.
    """

    def __init__(self, path: Path, threads: int | None = None):
        runtime = needs("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        raw = path.read_bytes()
        whole = is_whole(raw)
        if whole is not False:
            self.session = runtime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
            said = self.session.get_modelmeta().custom_metadata_map
        if whole is False or (whole is None and SEALED in said):
            raise DcilError(
                f"{path} cannot be read as an exported network (its SHA-256 is not the one at its end). It "
                "was left as it is"
            )
        self.path, self.is_sealed, self.card = path, bool(whole), said.get(CARD)
        takes, gives = (
            [(node.name, node.type) for node in nodes]
            for nodes in (self.session.get_inputs(), self.session.get_outputs())
        )
        if takes != [("images", "tensor(float)")] or gives != [("logits", "tensor(float)")]:
            raise DcilError(
                f"{path} takes {takes} and gives {gives}; a network of dcil takes float32 images and gives "
                "float32 logits. Export it with `python -m dcil export`"
            )

    def __call__(self, images: Tensor) -> Tensor:
        try:
            return torch.from_numpy(self.session.run(["logits"], {"images": images.numpy()})[0])
        except Exception as error:  # onnxruntime's exceptions have no common base class
            shape, why = list(images.shape), str(error).strip().splitlines()[-1]
            raise DcilError(f"{self.path} does not take images {shape}: {why:.200}") from error
