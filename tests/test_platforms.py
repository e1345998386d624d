"""Other systems than Linux, imitated: what they lack is taken away, and what differs is replaced."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dcil import machine
from dcil.data.loaders import default_workers

ROOT = Path(__file__).parents[1]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")

# PyTorch is imported first: it looks for its libraries where the system has them.
WINDOWS = """
import fcntl, os, signal, sys
import torch, torch.utils.data, filelock, numpy, tqdm

flush = os.fsync
def fsync(descriptor):
    if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_RDWR | os.O_WRONLY):
        raise OSError(9, "Bad file descriptor")
    flush(descriptor)

os.fsync, sys.platform = fsync, "win32"
for module in ("fcntl", "resource", "termios", "pwd"):
    sys.modules[module] = None
for name in ("sched_getaffinity", "fork", "sysconf", "O_NONBLOCK", "getuid", "killpg", "uname"):
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGALRM"):
    delattr(signal, name)
"""


def as_on_windows(code, folder):
    """Run code in a process that lacks what Windows lacks; returns the finished process."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", WINDOWS + code], cwd=folder, env=env, capture_output=True, text=True)


def test_the_library_needs_nothing_that_windows_lacks(tmp_path):
    """A network is wrapped, pruned, trained and written to a file, whole or not at all."""
    code = """
import pathlib, dcil
from dcil.io.files import write_atomically
dual = dcil.DualPath(dcil.models.resnet8(10))
dcil.set_masks(dual, sparsity=0.9)
logits, labels = dual(torch.randn(2, 3, 16, 16)), torch.tensor([0, 1])
dcil.collective_loss(*logits, labels, temperature=2.0, distill=True).backward()
write_atomically(pathlib.Path("net.pt"), lambda part: torch.save(dual.export().state_dict(), part))
"""
    done = as_on_windows(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fc.weight" in torch.load(tmp_path / "net.pt", weights_only=True)


def test_a_run_on_windows_is_refused(tmp_path):
    """In words, and before anything is written."""
    words = ["train", "--preset", "smoke", "--epochs", "1", "--device", "cpu"]
    done = as_on_windows(f"from dcil.cli.main import main\nsys.exit(main({words}))", tmp_path)
    assert done.returncode == 2 and "on Windows, train under WSL" in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_workers_where_no_process_has_cores_of_its_own(monkeypatch, system):
    """Only Linux says which cores a process may use; elsewhere all of them count."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert (default_workers(CUDA), default_workers(CPU)) == (10, 0)
    monkeypatch.setattr(os, "cpu_count", lambda: None)  # not known
    assert default_workers(CUDA) == 1


def test_a_mac_names_its_processor(monkeypatch, tmp_path):
    """By sysctl, since Python says "arm" of all; without sysctl that word remains."""

    def sysctl(words, **_):
        assert words == ["sysctl", "-n", "machdep.cpu.brand_string"]
        return SimpleNamespace(stdout="Apple M2 Pro\n")

    def no_sysctl(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "absent")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    for run, name in ((sysctl, "Apple M2 Pro"), (no_sysctl, "arm")):
        monkeypatch.setattr(subprocess, "run", run)
        assert machine.device_name(CPU) == name
    assert not machine.has_bf16(CPU)
