"""PyTorch settings of the caller, which a run must neither inherit nor leave changed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from dcil.errors import DcilError

_NUMBERS = threading.Lock()
_ASKED: list[str] = []  # what float32 is for the runs that are under way on GPUs
_BEFORE: list[tuple[Any, str, Any]] = []  # where, name and value of what the first of them found


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


@contextlib.contextmanager
def gpu_numbers(float32: str) -> Iterator[None]:
    """Let float32 on GPUs be "ieee", which it says, or "tf32", and kernels repeatable; then all is as before.

    Convolutions take TF32 and any kernel unless they are told otherwise. All of it is the process's, so runs in threads
    share it, and the last to end gives it back. Raises `DcilError` while a run is under way that asks for the other.
    """
    backends: Any = torch.backends
    wanted = (
        (backends.cuda.matmul, "fp32_precision", float32),
        (backends.cudnn.conv, "fp32_precision", float32),
        (backends.cudnn, "deterministic", True),
        (backends.cudnn, "benchmark", False),  # what wins a race on the clock may differ from run to run
    )
    with _NUMBERS:
        if {*_ASKED} - {float32}:
            raise DcilError(
                f"a run of this process computes float32 in {_ASKED[0]} on its GPU now, this one would in {float32}, "
                "and a process has one setting for both; run one after the other, or in processes of their own"
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
