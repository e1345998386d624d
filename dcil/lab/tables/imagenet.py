"""For the chapter on ImageNet: what others published, what a run would cost, how fast images come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from dcil.config import preset
from dcil.lab.runs.frames import MISSING, spread
from dcil.lab.tables.training_cost import machines, quartiles, select, short
from dcil.lab.yaml_files import Entry, Words, read_entries

IMAGES = 1_281_167  # in ImageNet's training part (ILSVRC 2012)
SPARSITIES = (80, 90, 95)  # percent


class Published(Entry):
    """What others report of a method: top-1 in percent by sparsity in percent, its cost, and what they count."""

    method: Words
    top1: dict[int, float] = Field(min_length=1)
    budget: Words
    counts: Words
    source: Words


def read_published(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of `book/published.yml`; raises `DcilError` naming one that has another shape."""
    return read_entries(path, Published)


def published_table(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return others' top-1 (percent) by sparsity with budget, what is counted and source; then this book's own rows."""
    lines = [
        {
            "method": r["method"],
            **{f"{s} %": f"{r['top1'][s]:.2f}" if s in r["top1"] else "" for s in SPARSITIES},
            "budget": r["budget"],
            "what the sparsity counts": r["counts"],
            "source": r["source"],
        }
        for r in rows
    ]
    mine = [r for r in records if r["status"] == "complete" and r["config"]["dataset"] == "imagenet"]
    for method in ("dcil", "ste"):
        line = {"method": method.upper()}
        for s in SPARSITIES:
            ends = [
                next(iter(r["final"]["passes"].values()))["last"]["top1"]
                for r in mine
                if (r["config"]["method"], round(100 * r["config"]["sparsity"])) == (method, s)
            ]
            line[f"{s} %"] = spread(pd.Series(ends)) if ends else MISSING
        lines.append(
            line
            | {
                "budget": f"{preset('imagenet').epochs} epochs, two passes a step"
                if method == "dcil"
                else f"{preset('imagenet').epochs} epochs",
                "source": "this book",
                "what the sparsity counts": "one threshold over all convolutions",
            }
        )
    return pd.DataFrame(lines)


def estimates(results: pd.DataFrame) -> pd.DataFrame:
    """Return what 90 epochs of ImageNet would take on each machine, by its measured steps, and a step's memory."""
    lines = []
    for kind in ("cpu", "cuda"):
        for machine, rows in machines(results, kind) or [(f"no {'GPU' if kind == 'cuda' else 'CPU'} yet", results[:0])]:
            row = next(select(rows, name="imagenet").itertuples(), None)
            line = {"machine": machine}
            if row is None:
                lines.append(
                    line
                    | dict.fromkeys(
                        (
                            "batch",
                            "dense step, s",
                            "DCIL step, s",
                            "DCIL / dense",
                            "dense run, device-hours",
                            "DCIL run, device-hours",
                            "DCIL step, GiB",
                        ),
                        MISSING,
                    )
                )
                continue
            hours = preset("imagenet").epochs * IMAGES / row.batch_size / 3600
            lines.append(
                line
                | {
                    "batch": str(row.batch_size),
                    "dense step, s": short(row.baseline_s),
                    "DCIL step, s": short(row.median_s),
                    "DCIL / dense": quartiles(row),
                    "dense run, device-hours": f"{hours * row.baseline_s:,.0f}",
                    "DCIL run, device-hours": f"{hours * row.median_s:,.0f}",
                    "DCIL step, GiB": f"{row.mem_mib / 1024:.1f}",
                }
            )
    return pd.DataFrame(lines)


def loading(results: pd.DataFrame) -> pd.DataFrame:
    """Return images a second on one core by the way they are read, and how many times faster than `ImageFolder`."""
    lines = []
    for machine, rows in machines(results):
        rows = select(rows, name="loading", case="ImageFolder + DataLoader")
        for r in rows[:1].itertuples():
            lines.append(
                {
                    "machine": machine,
                    "how": "torchvision's ImageFolder + DataLoader",
                    "images a second": f"{r.batch_size / r.median_s:,.0f}",
                    "times as fast": "1",
                }
            )
        for r in rows.itertuples():
            how = {"originals": "dcil, files decoded anew", "decoded": "dcil, kept decoded (the default)"}[r.baseline]
            lines.append(
                {
                    "machine": machine,
                    "how": how,
                    "images a second": f"{r.batch_size / r.baseline_s:,.0f}",
                    "times as fast": quartiles(r),
                }
            )
    return pd.DataFrame(lines or [{"how": MISSING}])


def feeding(results: pd.DataFrame) -> str:
    """Return in words how many cores would feed one device that trains the ImageNet recipe at its measured pace."""
    sentences = []
    for machine, rows in machines(results):
        steps, loads = select(rows, name="imagenet"), select(rows, name="loading", baseline="originals")
        if len(steps) and len(loads):
            step, load = steps.iloc[0], loads.iloc[0]
            asked, given = step["batch_size"] / step["baseline_s"], load["batch_size"] / load["baseline_s"]
            sentences.append(
                f"On {machine}, dense training takes {short(asked)} images a second; one core decodes and "
                f"crops {short(given)} of Imagenette's small images in that time."
            )
    return " ".join(sentences) or "Not run."
