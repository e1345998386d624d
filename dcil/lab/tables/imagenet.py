"""For the chapter on ImageNet: published results, what a run would cost, and how fast images are loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from pydantic import Field

from dcil.config import preset
from dcil.lab.runs.benchmarks import by_machine, rows_where
from dcil.lab.runs.compared import is_compared, looked_at
from dcil.lab.runs.frames import MISSING, spread
from dcil.lab.runs.names import label
from dcil.lab.tables.training_cost import ratio_in_words
from dcil.lab.wording import three_digits
from dcil.lab.yaml_files import Entry, Words, read_entries
from dcil.run_record import Run

IMAGES = 1_281_167  # in ImageNet's training set (ILSVRC 2012)
SPARSITIES = (80, 90, 95)  # percent
ESTIMATE_COLUMNS = ["machine", "batch", "dense step, s", "DCIL step, s", "DCIL / dense", "dense run, device-hours",
                    "DCIL run, device-hours", "DCIL step, GiB"]  # fmt: skip


class Published(Entry):
    """A method's published results: top-1 in percent by sparsity in percent, its budget, what the sparsity counts."""

    method: Words
    top1: dict[int, float] = Field(min_length=1)
    budget: Words
    counts: Words
    source: Words


def read_published(path: str | Path) -> list[Published]:
    """Return the rows of `book/published.yml`; raises `DcilError` naming a row of another shape."""
    return read_entries(path, Published)


def published_table(rows: list[Published], runs: Iterable[Run]) -> pd.DataFrame:
    """Return published top-1 (percent) by sparsity, with budget, what is counted and source; then this book's rows.

    A row of this book is of the runs that a claim at the paper's scale would compare, all of the preset's network,
    epochs and scope.
    """
    lines = []
    for r in rows:
        line = {"method": r.method}
        for s in SPARSITIES:
            line[f"{s} %"] = f"{r.top1[s]:.2f}" if s in r.top1 else ""
        lines.append(line | {"budget": r.budget, "what the sparsity counts": r.counts, "source": r.source})
    usual = preset("imagenet")
    asked = {name: getattr(usual, name) for name in ("dataset", "model", "epochs", "scope")}
    mine = looked_at(run for run in runs if is_compared(run, "paper", asked))
    for method, budget in (("dcil", f"{usual.epochs} epochs, two passes a step"), ("ste", f"{usual.epochs} epochs")):
        line = {"method": label(method)}
        for s in SPARSITIES:
            lasts = [run.last for run in mine if (run.variant, round(100 * run.config.sparsity)) == (method, s)]
            line[f"{s} %"] = spread(lasts)
        counts = "one threshold over all convolutions"
        lines.append(line | {"budget": budget, "source": "this book", "what the sparsity counts": counts})
    return pd.DataFrame(lines)


def estimates_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return what ImageNet's schedule would take on each machine, from its measured step times, and a step's memory."""
    lines = []
    for kind, absent in (("cpu", "no CPU yet"), ("cuda", "no GPU yet")):
        for machine, rows in by_machine(results, kind) or [(absent, results[:0])]:
            row = next(rows_where(rows, name="imagenet").itertuples(), None)
            if row is None:
                lines.append(dict.fromkeys(ESTIMATE_COLUMNS, MISSING) | {"machine": machine})
                continue
            hours = preset("imagenet").epochs * IMAGES / row.batch_size / 3600
            lines.append(
                {
                    "machine": machine,
                    "batch": str(row.batch_size),
                    "dense step, s": three_digits(row.baseline_s),
                    "DCIL step, s": three_digits(row.median_s),
                    "DCIL / dense": ratio_in_words(row),
                    "dense run, device-hours": f"{hours * row.baseline_s:,.0f}",
                    "DCIL run, device-hours": f"{hours * row.median_s:,.0f}",
                    "DCIL step, GiB": f"{row.mem_mib / 1024:.1f}",
                }
            )
    return pd.DataFrame(lines, columns=ESTIMATE_COLUMNS)


def loading_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return images per second on one core for each way of reading them, and the speed relative to `ImageFolder`."""
    lines = []
    for machine, rows in by_machine(results):
        rows = rows_where(rows, name="loading", case="ImageFolder + DataLoader")
        for r in rows[:1].itertuples():
            lines.append(
                {
                    "how": "torchvision's ImageFolder + DataLoader",
                    "images a second": f"{r.batch_size / r.median_s:,.0f}",
                    "times as fast": "1",
                    "machine": machine,
                }
            )
        for r in rows.itertuples():
            how = {"originals": "dcil, files decoded anew", "decoded": "dcil, kept decoded (the default)"}[r.baseline]
            lines.append(
                {
                    "how": how,
                    "images a second": f"{r.batch_size / r.baseline_s:,.0f}",
                    "times as fast": ratio_in_words(r),
                    "machine": machine,
                }
            )
    return pd.DataFrame(lines, columns=["how", "images a second", "times as fast", "machine"])


def feeding_in_words(results: pd.DataFrame) -> str:
    """Return in words how many images a second dense ImageNet training takes, and how many one core can prepare."""
    sentences = []
    for machine, rows in by_machine(results):
        steps, loads = rows_where(rows, name="imagenet"), rows_where(rows, name="loading", baseline="originals")
        if len(steps) and len(loads):
            step, load = steps.iloc[0], loads.iloc[0]
            asked, given = step["batch_size"] / step["baseline_s"], load["batch_size"] / load["baseline_s"]
            sentences.append(
                f"On {machine}, dense training takes {three_digits(asked)} images a second; one core decodes and "
                f"crops {given:,.0f} of Imagenette's small images in that time."
            )
    return " ".join(sentences) or "Not run."
