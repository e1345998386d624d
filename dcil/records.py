"""Run records: one JSON file a run, written by `dcil`, checked on writing and on reading."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from dcil.checkpoint import write_atomically
from dcil.config import LATER, RunConfig, run_id_of
from dcil.dynamics import final_mask
from dcil.errors import DcilError
from dcil.machine import device_name, source_state

SCHEMA = 1
LAST = 10  # epochs averaged beside the last one

# What a record holds: a type, a tuple of types, [schema of each item] or {key: schema}. Everything
# named here must be there; a record may hold more.
_NUMBER = (int, float)
SHAPE = {
    "schema": int,
    "run_id": str,
    "tier": str,
    "status": str,
    "config": {"dataset": str, "model": str, "method": str, "sparsity": _NUMBER, "epochs": int, "seed": int},
    "environment": {"python": str, "torch": str, "device": str, "threads": int, "commit": str, "dirty": bool,
                    "lock": str, "date": str},
    "data": {"name": str, "sha256": str, "train_size": int, "test_size": int, "num_classes": int},
    "curve": [{"epoch": int, "lr": _NUMBER, "target_sparsity": _NUMBER, "sparsity": _NUMBER, "flips": int,
               "refreshes": int, "loss": dict, "train": dict, "test": dict, "time_s": _NUMBER}],
    "final": {"passes": dict},
    "cost": {"time_s": _NUMBER, "mem_mib": _NUMBER, "dense_macs": int, "inference_macs": int, "train_macs": int,
             "num_params": int, "nonzeros": dict},
}  # fmt: skip

# Measures that came later, or that not every method has.
OPTIONAL = {
    "masks": {"stride": int, "count": int, "overlap_with_last": [{"epoch": int, "jaccard": _NUMBER}], "final": str},
}


def _problems(value: Any, shape: Any, where: str) -> list[str]:
    """Return what of `value` does not have the shape, each with its place."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where.rstrip('.') or 'the file'} must be an object, got {type(value).__name__}"]
        problems = [f"{where}{key} is missing" for key in shape if key not in value]
        for key in (k for k in shape if k in value):
            problems += _problems(value[key], shape[key], f"{where}{key}.")
        return problems
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where.rstrip('.')} must be a list, got {type(value).__name__}"]
        return [p for i, item in enumerate(value) for p in _problems(item, shape[0], f"{where.rstrip('.')}[{i}].")]
    wrong_bool = isinstance(value, bool) and shape is not bool
    if not isinstance(value, shape) or wrong_bool:
        wanted = " or ".join(t.__name__ for t in (shape if isinstance(shape, tuple) else (shape,)))
        return [f"{where.rstrip('.')} must be {wanted}, got {value!r:.40}"]
    return []


def validate(record: Any, source: str = "the record") -> dict[str, Any]:
    """Return the record if it is one; raises `dcil.DcilError` naming the source and what is wrong with it.

    A record has the configuration, the environment, the data's checksum, a curve with a row an epoch (accuracies in
    percent, times in seconds), the final accuracies by pass, and the cost (MACs, MiB, seconds, nonzeros). What does not
    follow from the curve or the configuration is refused.

    >>> validate({"schema": 1, "run_id": "a"}, "my file")
    Traceback (most recent call last):
    dcil.errors.DcilError: my file is not a valid run record: tier is missing; ... It was left as it is
    """
    if isinstance(record, dict) and isinstance(schema := record.get("schema"), int):
        if schema > SCHEMA:
            raise DcilError(f"{source} has schema {schema}, this dcil reads up to {SCHEMA}; update dcil")
        if schema < 1:
            raise DcilError(f"{source} has schema {schema}, and there is none below 1. It was left as it is")
    problems = _problems(record, SHAPE, "")
    if not problems:
        try:
            expected = RunConfig.from_dict(record["config"]).tier
        except DcilError as error:
            raise DcilError(f"{source} is not a valid run record: {error} It was left as it is") from error
        if record["tier"] != expected:
            problems.append(f"tier is {record['tier']!r}, but its configuration is of tier {expected!r}")
        if record["status"] not in ("complete", "failed"):
            problems.append(f"status must be 'complete' or 'failed', got {record['status']!r}")
        if [row["epoch"] for row in record["curve"]] != list(range(len(record["curve"]))):
            problems.append("the curve's epochs do not run 0, 1, 2, ...")
        elif record["status"] == "complete" and len(record["curve"]) != record["config"]["epochs"]:
            problems.append(f"the curve has {len(record['curve'])} of {record['config']['epochs']} epochs")
        elif record["final"] != _summary_or_none(record):
            problems.append("final does not follow from the curve")
        if record["run_id"] != run_id_of(record["config"]):
            problems.append("the run id does not follow from the configuration")
        problems += _problems(record, {k: v for k, v in OPTIONAL.items() if k in record}, "")
        measured = record.get("masks", {}).get("overlap_with_last") if not problems else None
        if measured == []:
            problems.append("masks.overlap_with_last is empty: it must end with the final mask")
        if measured and (mask := final_mask(record)) is not None and record["masks"]["stride"] == 1:
            at = max(row["epoch"] for row in measured)  # after this epoch
            if any(abs(1 - mask.mean() - row["sparsity"]) > 1e-6 for row in record["curve"] if row["epoch"] == at):
                problems.append("the final mask does not have the sparsity that the curve says")
    if problems:
        raise DcilError(f"{source} is not a valid run record: {'; '.join(problems[:5])}. It was left as it is")
    return record


def _summary_or_none(record: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return summarize(record["curve"], record["config"]["sparsity"])
    except (KeyError, TypeError):  # a row lacks a pass or a figure
        return None


def summarize(curve: list[dict], sparsity: float) -> dict[str, Any]:
    """Return the end of a run by pass: last epoch (the headline), mean of the last ten, and the best.

    Nothing uses the best. `best_at_target` looks only at epochs whose masks were set to the final
    sparsity, `best_any` at all of them, as the authors' saved files do. Figures are test top-1 in percent.
    """
    passes: dict[str, Any] = {}
    for name in curve[-1]["test"] if curve else ():
        top1 = [(row["test"][name]["top1"], -row["epoch"]) for row in curve]
        at_target = [t for t, row in zip(top1, curve, strict=True) if row["target_sparsity"] == sparsity]
        best = {k: ({"top1": max(v)[0], "epoch": -max(v)[1]} if v else None)
                for k, v in (("best_at_target", at_target), ("best_any", top1))}  # fmt: skip
        tail = [t for t, _ in top1[-LAST:]]
        passes[name] = {"last": {"top1": top1[-1][0], "top5": curve[-1]["test"][name]["top5"], "epoch": -top1[-1][1]},
                        "mean_last_ten": {"top1": round(fmean(tail), 4), "epochs": len(tail)}, **best}  # fmt: skip
    return {"passes": passes}


def environment(device: torch.device) -> dict[str, Any]:
    """Return what the run runs on and with which code."""
    commit, dirty = source_state()
    lock = Path(__file__).resolve().parents[1] / "requirements.lock"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "commit": commit,
        "dirty": dirty,
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest()[:16] if lock.exists() else "none",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def without_timing(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record less clocks, memory and date: what two runs of one seed must share."""
    copy = json.loads(json.dumps(record))
    for row in copy["curve"]:
        del row["time_s"]
    for name in ("time_s", "mem_mib", "sessions"):
        copy["cost"].pop(name, None)
    del copy["environment"]["date"]
    return copy


def write(record: dict[str, Any], path: str | Path) -> Path:
    """Check a record and write it atomically; returns its path."""
    path, text = Path(path), json.dumps(validate(record), indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_text(text))
    return path


def read(path: str | Path) -> dict[str, Any]:
    """Read and check one record; raises `DcilError` naming the file, which stays as it is."""
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DcilError(f"the record {path} cannot be read: {error}. It was left as it is") from error
    return validate(content, str(path))


def load_all(folder: str | Path, **config: Any) -> list[dict[str, Any]]:
    """Return the records of a folder whose configuration has these values, in the order of their file names.

    `tier` may be asked for like a configuration field. A folder that is not there holds no records. Raises
    `dcil.DcilError` naming the file for one that is no record.

    >>> load_all("a folder that is not there", method="dcil")
    []
    """
    found = [read(path) for path in sorted(Path(folder).glob("*.json"))]
    fields = [{"tier": r["tier"]} | LATER | r["config"] for r in found]
    return [r for r, own in zip(found, fields, strict=True) if all(own.get(k) == v for k, v in config.items())]


def add(path: str | Path, folder: str | Path) -> Path:
    """Take a record into a folder under its run id, checked and never overwriting; returns the new path."""
    record = read(path)
    target = Path(folder) / f"{record['run_id']}.json"
    if target.exists():
        if target.read_bytes() == Path(path).read_bytes():
            return target
        raise DcilError(f"{target} is there already and differs from {path}; nothing was overwritten")
    write_atomically(target, lambda part: shutil.copyfile(path, part))
    return target
