"""Records with only the parts that tables read."""

import copy

from dcil.lab.runs.frames import COMPARED


def record(method, seed, last, passes=("sparse",), **changes):
    """The parts of a run record that tables read."""
    end = {
        "last": {"top1": last, "epoch": 1},
        "mean_last_ten": {"top1": last},
        "best_at_target": {"top1": last + 1, "epoch": 0},
    }
    row = {
        "epoch": 0,
        "sparsity": 0.9,
        "flips": 10,
        "refreshes": 2,
        "test": {p: {"top1": last} for p in passes},
        "train": {p: {"top1": last} for p in passes},
    }
    config = {
        "dataset": "cifar10",
        "model": "resnet20",
        "method": method,
        "sparsity": 0.9,
        "seed": seed,
        "epochs": 1,
        **COMPARED["quick"],
        **changes,
    }
    cost = {"time_s": 60.0, "mem_mib": 1.0, "inference_macs": 10, "train_macs": 20, "nonzeros": {"conv": 3, "norm": 1}}
    env = {
        "device": "a CPU",
        "threads": 1,
        "commit": "0123456789",
        "dirty": False,
        "torch": "2.13.0",
        "python": "3.11.7",
        "date": "2026-01-02",
    }
    return {
        "run_id": f"{method}-{seed}-aaaa",
        "tier": "quick",
        "status": "complete",
        "config": config,
        "curve": [row],
        "final": {"passes": {p: copy.deepcopy(end) for p in passes}},
        "cost": cost,
        "environment": env,
    }


PAIRED = [record("ste", 0, 80.0), record("ste", 1, 82.0), record("dcil", 0, 81.0), record("dcil", 1, 82.5)]
