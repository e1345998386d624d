"""Shared fixtures; a test whose data, browser, GPU or SLURM is missing is skipped, or fails in CI."""

import importlib.util
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from dcil.data.datasets import DATASETS, Dataset, data_folder
from tools import chromium

torch.set_num_threads(1)  # another order of summation changes the last digits
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as when a script runs the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

SITE = Path(__file__).parents[1] / "_build" / "html" / "index.html"


def missing(mark: str) -> str:
    """Return why a test with this mark cannot run here, "" if it can."""
    if mark == "gpu" and not torch.cuda.is_available():
        return "no CUDA device"
    if mark == "cifar":
        absent = [f for known in DATASETS.values() for f in known.files if not (data_folder() / f).exists()]
        return f"CIFAR is not in {data_folder()} ({absent[0]}); set DCIL_DATA" if absent else ""
    if mark == "imagenette":
        known = any((data_folder() / name / "train").is_dir() for name in DATASETS["imagenette"].folders)
        return "" if known else f"Imagenette is not in {data_folder()}; set DCIL_DATA"
    if mark == "browser":
        absent = [str(path) for path in (chromium.CHROMIUM, SITE) if not path.exists()]
        return f"{absent[0]} is absent; set DCIL_CHROMIUM, build with `make site`" if absent else ""
    if mark == "slurm":
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        absent = [name for name in ("sbatch", "slurmctld", "slurmd", "munged") if not shutil.which(name, path=path)]
        if absent:
            return f"{absent[0]} is absent; on Debian: apt-get install slurm-wlm munge"
        if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
            return "Snakemake's executor for SLURM is absent; pip install -e '.[cluster]'"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that lacks what its mark needs; in CI only a missing GPU or SLURM may skip, all else fails."""
    for mark in ("cifar", "imagenette", "browser", "gpu", "slurm"):
        if item.get_closest_marker(mark) and (reason := missing(mark)):
            if os.environ.get("CI") == "true" and mark not in ("gpu", "slurm"):
                pytest.fail(f"CI must have what the mark {mark!r} needs: {reason}", pytrace=False)
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same random numbers, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def process_group(tmp_path):
    """Let this process be the only rank of a group, so that a network can be wrapped for several."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def tiny_dataset() -> Dataset:
    """40 training and 16 test images, 3×8×8, of ten classes that differ in brightness."""
    generator = torch.Generator().manual_seed(0)

    def part(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(n) % 10
        noise = torch.randint(20, (n, 3, 8, 8), generator=generator)
        return (noise + 20 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels

    return Dataset("tiny", *part(40), *part(16), 10, (0.4,) * 3, (0.25,) * 3)


@pytest.fixture
def tiny_config():
    """Return a function that makes configurations, which train on `tiny_dataset` in a fraction of a second."""
    from dcil import RunConfig

    base = {
        "model": "resnet8",
        "epochs": 2,
        "batch_size": 10,
        "mask_period": 2,
        "ramp_end": 1,
        "distill_from": 1,
        "device": "cpu",
        "sparsity": 0.8,
    }
    return lambda **changes: RunConfig(**base | changes).resolve()
