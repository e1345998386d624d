"""PyTorch settings of the caller, which a run must neither inherit nor leave changed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from dcil.errors import DcilError

_NUMBERS = threading.Lock()
_ASKED: list[str] = []  # how each run that is under way on a GPU computes float32
_BEFORE: list[tuple[Any, str, Any]] = []  # object, name and value of each setting before the first of them


@contextlib.contextmanager
def plain(device_type: str) -> Iterator[None]:
    """Context with gradients and without autocast or a default device, whatever the caller's settings.

    These settings are per thread. Settings of the process cannot be changed under other threads: raises `DcilError` for
    a default dtype other than float32, and for float32 computed in bf16 on a CPU.
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
            "torch.set_default_dtype(torch.float32) first. A run in float64 is RunConfig(precision='float64')"
        )
    # torch.get_float32_matmul_precision() does not report what was set for oneDNN alone.
    matmul, conv = torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv  # type: ignore[attr-defined]
    if device_type == "cpu" and "bf16" in (matmul.fp32_precision, conv.fp32_precision):
        raise DcilError(
            "PyTorch is set to compute float32 in bf16 on this CPU, so the record would be wrong; call "
            "torch.set_float32_matmul_precision('highest') first. A run in bf16 is RunConfig(precision='bf16')"
        )


@contextlib.contextmanager
def gpu_numbers(float32: str) -> Iterator[None]:
    """Context in which GPUs compute float32 as "ieee" (full precision) or "tf32", with deterministic kernels.

    By default, convolutions use TF32 and nondeterministic kernels. These settings are the process's, so runs in threads
    share them, and the last run to end restores them. Raises `DcilError` while a run that needs the other is under way.
    """
    backends: Any = torch.backends
    wanted = (
        (backends.cuda.matmul, "fp32_precision", float32),
        (backends.cudnn.conv, "fp32_precision", float32),
        (backends.cudnn, "deterministic", True),
        (backends.cudnn, "benchmark", False),  # the kernel that wins the timing may differ from run to run
    )
    with _NUMBERS:
        if {*_ASKED} - {float32}:
            raise DcilError(
                f"a run of this process computes float32 in {_ASKED[0]} on its GPU now, this one would in {float32}, "
                "and a process has one setting for both; run one after the other, or in separate processes"
            )
        if not _ASKED:
            _BEFORE[:] = [(where, name, getattr(where, name)) for where, name, _ in wanted]
            _set(wanted)
        _ASKED.append(float32)
    try:
        yield
    finally:
        with _NUMBERS:
            _ASKED.remove(float32)
            if not _ASKED:
                _set(_BEFORE)


def _set(values: Iterable[tuple[Any, str, Any]]) -> None:
    for where, name, value in values:
        setattr(where, name, value)
