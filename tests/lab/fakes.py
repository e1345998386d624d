"""Fake runs, whose records have only the parts that tables read."""

import copy
from typing import Any

from dcil import methods
from dcil.data.datasets import DATASETS
from dcil.lab.evidence.claims import Claim
from dcil.lab.runs.compared import COMPARED
from dcil.run_record import Run


def fake_run(method, seed, last, passes=(), **changes):
    """Return a run of one epoch whose passes, by default the deployed one, end at `last`; `changes` are settings."""
    passes = passes or methods.get(method).passes[:1]
    end = {
        "last": {"top1": last, "epoch": 1},
        "mean_last_ten": {"top1": last},
        "best_at_target": {"top1": last + 1, "epoch": 0},
    }
    row = {
        "epoch": 0,
        "target_sparsity": 0.9,
        "sparsity": 0.9,
        "flips": 10,
        "refreshes": 2,
        "time_s": 60.0,
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
    cost = {
        "time_s": 60.0,
        "mem_mib": 1.0,
        "dense_macs": 100,
        "inference_macs": 10,
        "train_macs": 20,
        "num_params": 40,
        "nonzeros": {"conv": 3, "norm": 1},
    }
    content = DATASETS[config["dataset"]].content or "0" * 64
    data = {"name": config["dataset"], "sha256": content, "train_size": 100, "test_size": 20, "num_classes": 10}
    env = {
        "device": "a CPU",
        "threads": 1,
        "commit": "0123456789",
        "dirty": False,
        "torch": "2.13.0",
        "python": "3.11.7",
        "date": "2026-01-02",
    }
    return Run(
        {
            "run_id": f"{method}-{seed}-aaaa",
            "tier": "quick",
            "status": "complete",
            "config": config,
            "curve": [row],
            "final": {"passes": {p: copy.deepcopy(end) for p in passes}},
            "cost": cost,
            "environment": env,
            "data": data,
        }
    )


def fake_runs(**lasts):
    """Return runs of methods, one seed for each last top-1: `fake_runs(ste=(80, 81), dcil=(82,))`."""
    return [fake_run(method, seed, last) for method, values in lasts.items() for seed, last in enumerate(values)]


def changed(found, part, **values):
    """Return the run with some values of a part of its record changed: `changed(run, "cost", time_s=1.0)`."""
    return found | {part: found[part] | values}


PAIRED = [fake_run("ste", 0, 80.0), fake_run("ste", 1, 82.0), fake_run("dcil", 0, 81.0), fake_run("dcil", 1, 82.5)]


#: A claim as book/claims.yml has one.
CLAIM: dict[str, Any] = {"id": "x", "claim": "DCIL is better.", "source": "abstract", "paper": None,
         "rule": {"kind": "better", "a": "dcil", "b": "ste", "margin": 0.3},
         "evidence": {"quick": {"dataset": "cifar10", "sparsity": 0.9}}, "chapter": "06-cifar"}  # fmt: skip
SMALLER = {"kind": "smaller", "figure": "flips", "a": "dcil", "b": "ste", "margin": 0.2}


def fake_claim(**changes):
    """Return the claim with other fields."""
    return Claim(**CLAIM | changes)
