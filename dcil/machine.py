"""The hardware a run uses and the version of the code, as stated in a record."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from dcil.errors import DcilError

CPUINFO = Path("/proc/cpuinfo")
#: Environment of processes that may share their cores; the caller's own comes first. Threads of libgomp, which PyTorch
#: uses on Linux, wait for each other by spinning, by default so long that two processes, each with a thread per core,
#: end far later together than one after the other. A short spin costs a process that is alone little.
SHORT_SPIN = {"GOMP_SPINCOUNT": "1000"}


def require_posix() -> None:
    """Raise `DcilError` on Windows, where a run could neither measure its memory nor stop at a signal."""
    if sys.platform == "win32":
        raise DcilError("runs need Linux or macOS; on Windows, train under WSL")


def require(device: str) -> torch.device:
    """Return the device "cpu" or "cuda"; raises `DcilError` for "cuda" if PyTorch sees no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise DcilError("device is 'cuda' but this PyTorch sees no GPU; use --device cpu, or 'auto'")
    return torch.device(device)


def peak_memory_mib(device: torch.device) -> float:
    """Return the process's peak memory so far in MiB: resident set size on a CPU, PyTorch's allocations on a GPU.

    Runs that share a process share its peak; on a GPU, only concurrent runs do (`Engine.counted`).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # absent on Windows, see `require_posix`

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB on Linux


def num_cores() -> int:
    """Return the number of cores that this process may use, as far as the system tells; at least 1."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_bf16(device: torch.device) -> bool:
    """Return whether the device has bf16 instructions; others emulate bf16, slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # of the processor, or all that ATEN_CPU_CAPABILITY allows
        return False
    with contextlib.suppress(OSError):
        return "bf16" in CPUINFO.read_text(encoding="utf-8")  # avx512_bf16, amx_bf16; bf16 on Arm
    return False


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":  # where the processor is only "arm"
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            words = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine()


def source_state() -> tuple[str, bool]:
    """Return the commit of this checkout ("unknown" outside git) and whether tracked files differ from it."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False
