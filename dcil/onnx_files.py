"""ONNX files: written with PyTorch's exporter, made int8 and run by onnxruntime."""

from __future__ import annotations

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
CARD = "dcil"  # the key of the card among a file's metadata


def needs(name: str) -> Any:
    """Import a module of the extra `export`; raises `DcilError` when it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DcilError(f"{error.name} is needed here and not installed: pip install 'dcil[export]'") from error


def write_onnx(net: nn.Module, side: int, card: str, path: Path) -> None:
    """Write a network that takes [N, 3, side, side] as ONNX, its card among the metadata; any N goes in."""
    onnx = needs("onnx")
    needs("onnxscript")
    example = torch.randn(2, 3, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's exporter about PyTorch
        program = torch.onnx.export(net, (example,), input_names=["images"], output_names=["logits"], dynamo=True,
                                    dynamic_shapes=({0: torch.export.Dim("batch")},), opset_version=OPSET,
                                    verbose=False)  # fmt: skip
    made = program.model_proto
    onnx.helper.set_model_props(made, {CARD: card})
    path.write_bytes(made.SerializeToString())


def write_int8(net: nn.Module, side: int, card: str, path: Path, calibration: Iterable[Tensor]) -> None:
    """Write a network as ONNX in int8: weights a scale a filter, activations a scale measured on some batches.

    Weights use seven of their eight bits. On x86 processors without VNNI two products are added in 16 bits, and full
    ones would be cut off there, silently (onnxruntime's documentation on quantization, `reduce_range`).
    """
    onnx, quantization = needs("onnx"), needs("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        batches = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (Path(folder) / name for name in ("plain.onnx", "ready.onnx", "small.onnx"))
        write_onnx(net, side, card, plain)
        needs("onnxruntime.quantization.shape_inference").quant_pre_process(str(plain), str(ready))
        quantization.quantize_static(str(ready), str(small), Reader(), per_channel=True, reduce_range=True,
                                     activation_type=quantization.QuantType.QUInt8)  # what x86 multiplies fastest
        made = onnx.load(small)
    onnx.helper.set_model_props(made, {CARD: card})
    path.write_bytes(made.SerializeToString())


class OnnxNetwork:
    """An ONNX file as a function of images [N, 3, H, W] to logits [N, classes], run by onnxruntime on the CPU."""

    def __init__(self, path: Path, threads: int | None = None):
        runtime = needs("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.card = self.session.get_modelmeta().custom_metadata_map.get(CARD)

    def __call__(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(["logits"], {"images": images.numpy()})[0])
