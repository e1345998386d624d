"""Two run records side by side: configuration, environment, accuracies, costs, and how far their masks agree."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dcil import records
from dcil.dynamics import jaccard
from dcil.lab.runs.images_right import NOT_RECORDED, image_difference_in_words, only_one
from dcil.run_record import Run
from dcil.runs import by_id

Row = tuple[str, str, str, str]  # what, in A, in B, the difference


def find_record(name: str, folder: str | Path) -> Run:
    """Return the run of a record file or of a run's folder, or the one in `folder` whose run id begins with `name`.

    Raises `DcilError` if there is none, or more than one.
    """
    if Path(name).is_dir():
        name = str(Path(name) / "record.json")
    if name.endswith(".json") or Path(name).is_file():
        return Run(records.read(name))
    known = {path.stem: path for path in sorted(Path(folder).glob("*.json"))}
    return Run(records.read(by_id(name, known, f"record in {folder}")))


def _differing(one: dict[str, Any], two: dict[str, Any], prefix: str) -> list[Row]:
    return [
        (f"{prefix}.{key}", str(one.get(key, "")), str(two.get(key, "")), "")
        for key in sorted(one | two)
        if one.get(key) != two.get(key)
    ]


def _number(what: str, both: Iterable[float], digits: int = 2) -> Row:
    a, b = both
    return what, f"{a:.{digits}f}", f"{b:.{digits}f}", f"{b - a:+z.{digits}f}"


def _accuracies(a: Run, b: Run) -> list[Row]:
    """Return, for each pass, the last epoch's test top-1, and that of the epoch where the two curves differ most."""
    rows: list[Row] = []
    for name in (n for n in a.by_pass if n in b.by_pass):
        rows.append(_number(f"{name} pass, last epoch, %", (a.by_pass[name].last, b.by_pass[name].last)))
        both = [(x.test[name], y.test[name], x.epoch) for x, y in zip(a.curve, b.curve, strict=False)]
        one, two, epoch = max(both, key=lambda pair: abs(pair[0] - pair[1]))
        rows.append(_number(f"{name} pass, farthest apart (epoch {epoch + 1}), %", (one, two)))
    return rows


def _images(a: Run, b: Run) -> list[Row]:
    """Return, for each pass, how many test images only one network gets right, and the difference that this makes."""
    if a["data"] != b["data"]:
        return []
    one, two = a.images_right, b.images_right
    if one is None or two is None:
        mine, theirs = ("recorded" if right else NOT_RECORDED for right in (one, two))
        return [("which test images are right", mine, theirs, "")]
    rows: list[Row] = []
    for name in (n for n in one if n in two):
        what = f"{name} pass, images right in one only; points over images, McNemar's p"
        in_a, in_b = only_one(one[name], two[name])
        rows.append((what, str(in_a), str(in_b), image_difference_in_words(two[name], one[name])))
    return rows


def comparison(a: Run, b: Run) -> list[Row]:
    """Return how two runs differ in configuration, environment and data; then their accuracies, masks and costs."""
    rows = _differing(a.config.as_dict(), b.config.as_dict(), "config")
    for part in ("environment", "data"):
        rows += _differing(a[part], b[part], part)
    if a["status"] != b["status"]:
        rows.append(("status", a["status"], b["status"], ""))
    if a.curve and b.curve:
        rows += _accuracies(a, b) + _images(a, b)
        rows.append(_number("sparsity, %", (100 * a.sparsity, 100 * b.sparsity), digits=4))
    one, two = a.final_mask, b.final_mask
    if one is not None and two is not None and len(one) == len(two):
        rows.append(("overlap of the final masks (Jaccard)", "", "", f"{jaccard(one, two):.4f}"))
    minutes = [run.cost.own_time_s / 60 for run in (a, b)]
    if not any(map(math.isnan, minutes)):  # times of runs that shared their device are not comparable
        rows.append(_number("minutes", minutes, digits=1))
    rows.append(_number("peak memory, MiB", (a.cost.mem_mib, b.cost.mem_mib), digits=0))
    rows.append(_number("kept MACs an image", (a.cost.inference_macs, b.cost.inference_macs), digits=0))
    return rows


def same_but_for_timing(a: Run, b: Run) -> bool:
    """Return whether two runs differ in nothing but times, memory and date."""
    return records.without_timing(a.raw) == records.without_timing(b.raw)
