"""Two run records side by side: what was asked, on what, how they went and whether they kept the same weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dcil import records
from dcil.config import LATER
from dcil.dynamics import final_mask, jaccard
from dcil.runs import by_id

Row = tuple[str, str, str, str]  # what, in A, in B, the difference


def find(name: str, folder: str | Path) -> dict[str, Any]:
    """Return the record of a file, or the one in a folder whose run id begins with `name`.

    Raises `DcilError` when there is none, or more than one.
    """
    if name.endswith(".json") or Path(name).is_file():
        return records.read(name)
    known = {path.stem: path for path in sorted(Path(folder).glob("*.json"))}
    return records.read(by_id(name, known, f"record of {folder}"))


def _differing(one: dict[str, Any], two: dict[str, Any], prefix: str) -> list[Row]:
    return [
        (f"{prefix}.{key}", str(one.get(key, "")), str(two.get(key, "")), "")
        for key in sorted(one | two)
        if one.get(key) != two.get(key)
    ]


def _number(what: str, both: Iterable[float], digits: int = 2) -> Row:
    a, b = both
    return what, f"{a:.{digits}f}", f"{b:.{digits}f}", f"{b - a:+.{digits}f}"


def _curves(a: dict[str, Any], b: dict[str, Any]) -> list[Row]:
    """Return by pass the last epochs' test top-1, and where the two curves lie farthest apart."""
    rows: list[Row] = []
    for name in (n for n in a["final"]["passes"] if n in b["final"]["passes"]):
        ends = (r["final"]["passes"][name]["last"]["top1"] for r in (a, b))
        rows.append(_number(f"{name} pass, last epoch, %", ends))
        both = [
            (x["test"][name]["top1"], y["test"][name]["top1"], x["epoch"])
            for x, y in zip(a["curve"], b["curve"], strict=False)
        ]
        one, two, epoch = max(both, key=lambda pair: abs(pair[0] - pair[1]))
        rows.append(_number(f"{name} pass, farthest apart (epoch {epoch + 1}), %", (one, two)))
    return rows


def side_by_side(a: dict[str, Any], b: dict[str, Any]) -> list[Row]:
    """Return what differs of configuration and environment, then accuracies, masks and costs of two records."""
    rows = _differing(LATER | a["config"], LATER | b["config"], "config")
    rows += _differing(a["environment"], b["environment"], "environment") + _differing(a["data"], b["data"], "data")
    if a["status"] != b["status"]:
        rows.append(("status", a["status"], b["status"], ""))
    if a["curve"] and b["curve"]:
        rows += _curves(a, b)
        rows.append(_number("sparsity, %", (100 * r["curve"][-1]["sparsity"] for r in (a, b)), digits=4))
    one, two = final_mask(a), final_mask(b)
    if one is not None and two is not None and len(one) == len(two):
        rows.append(("overlap of the final masks (Jaccard)", "", "", f"{jaccard(one, two):.4f}"))
    minutes = [records.own_time_s(r) / 60 for r in (a, b)]
    if not any(map(math.isnan, minutes)):  # of runs that shared their device the difference says nothing
        rows.append(_number("minutes", minutes, digits=1))
    rows.append(_number("peak memory, MiB", (r["cost"]["mem_mib"] for r in (a, b)), digits=0))
    rows.append(_number("kept MACs an image", (r["cost"]["inference_macs"] for r in (a, b)), digits=0))
    return rows


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether two records differ in nothing but clocks, memory and date."""
    return records.without_timing(a) == records.without_timing(b)
