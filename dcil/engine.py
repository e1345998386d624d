"""How a step runs: device, precision and memory layout, and what the record says of them."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from pathlib import Path

import torch

from dcil.config import RunConfig

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}


class Engine:
    """The device, the parameters' dtype and the autocast context of a resolved configuration."""

    def __init__(self, config: RunConfig):
        self.device = torch.device(config.device)
        self.dtype = DTYPES[config.precision]
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.bf16 = config.precision == "bf16"

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the context for a forward pass: bf16 autocast where the configuration asks for it."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        """Move a module to the device, dtype and layout, in place."""
        return module.to(self.device, self.dtype).to(memory_format=self.layout)

    def peak_memory_mib(self) -> float:
        """Return the peak memory so far: allocated on the GPU, or the process's resident set on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        import resource  # absent on Windows, where no record has been made

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def source_state() -> tuple[str, bool]:
    """Return the commit of this checkout and whether tracked files differ from it ("unknown" outside git)."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False
