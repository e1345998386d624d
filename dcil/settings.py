"""What the caller has switched on in PyTorch, which a run must neither take over nor leave changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from dcil.errors import DcilError


@contextlib.contextmanager
def plain(device_type: str) -> Iterator[None]:
    """Let gradients flow, without autocast and a default device, whatever the caller has on; then all is as before.

    All these are a thread's own. What is the process's cannot be changed under other threads: raises `DcilError` for
    another default dtype than float32, and for bf16 in the place of float32 on a CPU.
    """
    _refuse_other_numbers(device_type)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device_type, enabled=False),
        contextlib.nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"),
    ):
        yield


def _refuse_other_numbers(device_type: str) -> None:
    if (dtype := torch.get_default_dtype()) != torch.float32:
        raise DcilError(
            f"PyTorch's default dtype is {dtype}, with which a seed draws other numbers; call "
            "torch.set_default_dtype(torch.float32) before. A run in float64 is RunConfig(precision='float64')"
        )
    # torch.get_float32_matmul_precision() does not say what was set for oneDNN alone.
    matmul, conv = torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv  # type: ignore[attr-defined]
    if device_type == "cpu" and "bf16" in (matmul.fp32_precision, conv.fp32_precision):
        raise DcilError(
            "PyTorch is set to compute float32 in bf16 on this CPU, so the record would say what is not so; call "
            "torch.set_float32_matmul_precision('highest') before. A run in bf16 is RunConfig(precision='bf16')"
        )
