"""Run records: one JSON file per run, written by `dcil`, validated on writing and on reading."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from dcil import methods
from dcil.config import LATER, TIERS, RunConfig, run_id_of
from dcil.dynamics import SAMPLE, mask_problems
from dcil.errors import DcilError, reason, unknown
from dcil.io.files import expanded, read_bytes, write_atomically, write_text_atomically
from dcil.io.intake import checksum, parse_json
from dcil.io.shapes import Named, Number, Text, unfit
from dcil.io.shapes import problems as shape_problems
from dcil.machine import device_name, source_state
from dcil.metrics import images_problems
from dcil.run_record import Run

SCHEMA = 1
LAST = 10  # epochs in the mean that is reported beside the last epoch
BY_PASS = ("train", "test", "reestimated")  # keys of a curve's row whose values are by pass

MOST = 8 * 2**20  # bytes per file: an epoch takes about 600, and a run has at most `dcil.config.MOST_EPOCHS`

# The shape of a record (`dcil.io.shapes`). Keys are required, except those with "?", which were added later or which
# not every run has; a record may have further keys. Every bound here is one that a page relies on.
_COUNT, _SIZE = Number(0, 1e15, whole=True), Number(1, 1e15, whole=True)
_SECONDS = Number(0, 1e10)
_REMOVED = Number(0, 1 - 1e-9)  # the fraction of weights removed; some weights always remain
_ACCURACIES = Named({"top1": Number(0, 100), "top5": Number(0, 100)}, 2)  # by pass
SHAPE = {
    "schema": Number(1, whole=True),
    "run_id": Text(),
    "tier": Text(),
    "status": Text(),
    "reason?": Text(2000),
    "config": {"dataset": Text(), "model": Text(), "method": Text(), "sparsity": Number(), "epochs": Number(whole=True),
               "seed": Number(whole=True)},
    "environment": {"python": Text(), "torch": Text(), "device": Text(), "threads": _SIZE, "commit": Text(),
                    "dirty": bool, "lock": Text(), "date": Text(), "step?": Text()},
    "data": {"name": Text(), "sha256": Text(), "train_size": _SIZE, "test_size": _SIZE,
             "num_classes": Number(1, 1e6, whole=True)},
    "curve": [{"epoch": _COUNT, "lr": Number(0), "target_sparsity": _REMOVED, "sparsity": _REMOVED, "flips": _COUNT,
               "refreshes": _COUNT, "loss": Named(Number()), "train": _ACCURACIES, "test": _ACCURACIES,
               "time_s": _SECONDS, "reestimated?": _ACCURACIES, "ever_kept?": Number(0, 1),
               "gradients?": {"cosine": Number(-1.001, 1.001), "norm_ratio": Number(0), "empty?": _COUNT,
                              "empty_share?": Number(0, 1.001), "cosine_rest?": Number(-1.001, 1.001)}}],
    "final": {"passes": Named(dict, 2)},
    "cost": {"time_s": _SECONDS, "mem_mib": Number(0, 1e9), "dense_macs": _SIZE, "inference_macs": _SIZE,
             "train_macs": _SIZE, "num_params": _SIZE, "layer_sparsity": Named(Number(0, 1)),
             "nonzeros": {"conv": _SIZE, "norm": _COUNT, "linear": _COUNT, "other": _COUNT},
             "shared_by?": Number(1, 1e6)},  # number of concurrent runs on the device, if more than one
    "masks?": {"stride": _SIZE, "count": Number(1, SAMPLE, whole=True),
               "overlap_with_last": [{"epoch": _COUNT, "jaccard": Number(0, 1)}], "final": Text(2**17)},
    "images_right?": Named(Text(2**17), 2),  # by pass, which test images the final network gets right (`dcil.io.bits`)
    "checksum?": Text(64),
}  # fmt: skip


class Damaged(DcilError):
    """A record file whose bytes are no JSON: truncated or corrupted."""


def validate(record: Any, source: str = "the record") -> dict[str, Any]:
    """Return the record if it is valid; raises `dcil.DcilError` naming the source and what is wrong with it.

    A record has the configuration, the environment, the data's checksum, a curve with one row per epoch (accuracies in
    percent, times in seconds), the final accuracies by pass, and the cost (MACs, MiB, seconds, nonzeros). It may have
    the final mask (`dcil.dynamics.final_mask`) and which test images are right at the end
    (`dcil.metrics.images_right`), one bit each. Derived values that do not follow from the curve or the configuration
    are refused. The returned record has its passes in the method's order, the deployed one first, whatever the order
    of its keys, since JSON objects are unordered.

    >>> validate({"schema": 1, "run_id": "a"}, "my file")
    Traceback (most recent call last):
    dcil.errors.DcilError: my file is not a valid run record: tier is missing; ... It was left as it is
    """
    if isinstance(record, dict) and isinstance(schema := record.get("schema"), int):
        if schema > SCHEMA:
            raise DcilError(f"{source} has schema {schema}, this dcil reads up to {SCHEMA}; update dcil")
        if schema < 1:
            raise DcilError(f"{source} has schema {schema}, and there is none below 1. It was left as it is")
    odd = unfit(record)
    problems = [odd] if odd else shape_problems(record, SHAPE)
    try:
        problems = problems or _contradictions(record)
    except DcilError as error:
        problems = [str(error).rstrip(".")]
    if problems:
        raise DcilError(f"{source} is not a valid run record: {'; '.join(problems[:5])}. It was left as it is")
    return _in_order(record, methods.get(record["config"]["method"]).passes)


def _contradictions(record: dict[str, Any]) -> list[str]:
    """Return the contradictions within a record that has the right shape."""
    config, curve, problems = RunConfig.from_dict(record["config"]), record["curve"], []
    if record["tier"] != config.tier:
        problems.append(f"tier is {record['tier']!r}, but its configuration is of tier {config.tier!r}")
    if record["status"] not in ("complete", "failed"):
        problems.append(f"status must be 'complete' or 'failed', got {record['status']!r}")
    problems += _unresolved(record["config"], config.resolve().as_dict())
    if not problems and record["run_id"] != run_id_of(record["config"]):
        problems.append("the run id does not follow from the configuration")
    problems += _other_passes(curve, config.method)
    if [row["epoch"] for row in curve] != list(range(len(curve))):
        problems.append("the curve's epochs do not run 0, 1, 2, ...")
    elif record["status"] == "complete" and len(curve) != config.epochs:
        problems.append(f"the curve has {len(curve)} of {config.epochs} epochs")
    elif not problems and record["final"] != summarize(curve, config.sparsity):
        problems.append("final does not follow from the curve")
    if not problems and "masks" in record:
        problems += mask_problems(record)
    if not problems and "images_right" in record:
        problems += images_problems(record)
    if not problems and "checksum" in record and record["checksum"] != checksum(_content(record)):
        meant = "use the file as it was written, or remove the checksum if the change is intended"
        problems.append(f"its checksum is not that of its content: the file was damaged or changed since; {meant}")
    return problems


def _other_passes(curve: list[dict[str, Any]], method: str) -> list[str]:
    """Return where a curve's passes are not those of its method."""
    passes = methods.get(method).passes
    return [
        f"curve[{row['epoch']}].{part} has the passes {sorted(row[part])}, {method} has {sorted(passes)}"
        for row in curve
        for part in BY_PASS
        if {*row.get(part, passes)} != {*passes}
    ]


def _content(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "checksum"}


def _unresolved(config: dict[str, Any], resolved: dict[str, Any]) -> list[str]:
    """Return where a configuration is not in canonical form, in which 2.0 is not 2; else a run could have two ids."""
    return [
        f"config.{name} must be {json.dumps(value)}, as dcil writes it, got "
        f"{json.dumps(config[name]) if name in config else 'nothing'}"
        for name, value in resolved.items()
        if json.dumps(config.get(name, LATER.get(name))) != json.dumps(value)
    ]


def _in_order(record: dict[str, Any], passes: Sequence[str]) -> dict[str, Any]:
    """Return the record with all its values by pass in the order of `passes`."""

    def ordered(by_pass: dict[str, Any]) -> dict[str, Any]:
        return {name: by_pass[name] for name in passes if name in by_pass}

    curve = [row | {part: ordered(row[part]) for part in BY_PASS if part in row} for row in record["curve"]]
    right = {"images_right": ordered(record["images_right"])} if "images_right" in record else {}
    return record | {"curve": curve, "final": {"passes": ordered(record["final"]["passes"])}} | right


def summarize(curve: list[dict], sparsity: float) -> dict[str, Any]:
    """Return the final results of a run by pass: last epoch (the headline), mean of the last ten, and the best.

    Nothing uses the best. `best_at_target` is the best of the epochs whose masks were set to the final
    sparsity, `best_any` of all epochs, as in the authors' saved files. Accuracies are test top-1 in percent.
    """
    passes: dict[str, Any] = {}
    for name in curve[-1]["test"] if curve else ():
        top1 = [(row["test"][name]["top1"], -row["epoch"]) for row in curve]
        at_target = [t for t, row in zip(top1, curve, strict=True) if row["target_sparsity"] == sparsity]
        best = {
            k: ({"top1": max(v)[0], "epoch": -max(v)[1]} if v else None)
            for k, v in (("best_at_target", at_target), ("best_any", top1))
        }
        tail = [t for t, _ in top1[-LAST:]]
        passes[name] = {
            "last": {"top1": top1[-1][0], "top5": curve[-1]["test"][name]["top5"], "epoch": -top1[-1][1]},
            "mean_last_ten": {"top1": round(fmean(tail), 4), "epochs": len(tail)},
            **best,
        }
    return {"passes": passes}


def environment(device: torch.device) -> dict[str, Any]:
    """Return the hardware, the software and the version of the code that a run uses."""
    commit, dirty = source_state()
    lock = Path(__file__).resolve().parents[1] / "requirements.lock"
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a checkpoint holds no subclass of str
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
    """Return the record without time, memory, date and concurrency; two runs of one seed must agree on the rest."""
    copy = json.loads(json.dumps(record))
    for row in copy["curve"]:
        del row["time_s"]
    for name in ("time_s", "mem_mib", "sessions", "shared_by"):
        copy["cost"].pop(name, None)
    del copy["environment"]["date"]
    return copy


def write(record: dict[str, Any], path: str | Path) -> Path:
    """Validate a record and write it atomically, with the checksum of its content; returns its path."""
    path, record = expanded(path), _content(validate(record))
    text = json.dumps(record | {"checksum": checksum(record)}, indent=1, allow_nan=False) + "\n"
    write_text_atomically(path, text)
    return path


def read(path: str | Path) -> dict[str, Any]:
    """Read and validate one record; raises `DcilError` naming the file, which is left untouched.

    The checksum, which only files have, is verified and left out of the result.
    """
    return _parsed(path)[0]


def _parsed(path: str | Path) -> tuple[dict[str, Any], bytes]:
    """Return a record and the exact bytes that were validated."""
    try:
        content = read_bytes(expanded(path), MOST)
        found = parse_json(content)
    except FileNotFoundError as error:
        raise DcilError(f"there is no record {path}") from error
    except (OSError, ValueError) as error:
        kind = DcilError if isinstance(error, OSError) else Damaged
        raise kind(f"the record {path} cannot be read: {reason(error)}. It was left as it is") from error
    return _content(validate(found, str(path))), content


def load_all(folder: str | Path, tier: str | None = None, **config: Any) -> list[Run]:
    """Return the runs of a folder whose configuration has these values, in the order of the records' file names.

    A `dcil.run_record.Run` has the parts of a record as attributes, and reads like the record itself. A missing folder
    counts as empty. Raises `dcil.DcilError` for a field or a value that no configuration has, and, naming the file,
    for an invalid record.

    >>> load_all("a folder that is not there", method="dcil")
    []
    """
    return select((Run(read(path)) for path in sorted(expanded(folder).glob("*.json"))), tier, **config)


def select(runs: Iterable[Run], tier: str | None = None, **config: Any) -> list[Run]:
    """Return the runs of a tier, if one is given, whose configuration has these values.

    Raises `dcil.DcilError`, before it takes a run, for a tier, a field or a value that no configuration has.
    """
    wanted = RunConfig.from_dict(config)
    if tier not in (None, *TIERS):
        raise unknown("tier", tier, TIERS)
    return [
        run
        for run in runs
        if tier in (None, run.tier) and all(getattr(run.config, name) == getattr(wanted, name) for name in config)
    ]


def add(path: str | Path, folder: str | Path) -> Path:
    """Validate a record file and copy it to a folder under its run id, never overwriting; returns the new path."""
    record, content = _parsed(path)
    target = expanded(folder) / f"{record['run_id']}.json"
    try:
        write_atomically(target, lambda part: part.write_bytes(content), _link)
    except FileExistsError as error:
        if target.is_symlink() or read_bytes(target, MOST) != content:
            raise DcilError(f"{target} is there already and differs from {path}; nothing was overwritten") from error
    return target


def _link(part: str, path: Path) -> None:
    """Move a file to `path` unless that exists: of two concurrent additions one fails, where a rename would replace."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links here, as on exFAT and many network drives: an empty file takes the name first
        path.touch(exist_ok=False)
        os.replace(part, path)
    else:
        os.unlink(part)
