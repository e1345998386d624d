"""The results of `python -m benchmarks`, and which of them belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from dcil.lab.runs.sources import machine_in_words

MACHINE = ["kind", "device", "threads", "malloc"]
COLUMNS = [*MACHINE, "name", "case", "baseline", "model", "batch_size", "median_s", "baseline_s", "ratio", "ratio_q1",
           "ratio_q3", "rounds", "mem_mib", "baseline_mib", "recipe_epochs", "how", "data", "others", "torch", "date",
           "commit", "dirty", "file"]  # fmt: skip
# Columns that pandas might read as numbers, or that are often empty.
TEXT = dict.fromkeys(("malloc", "how", "torch", "commit"), str)


def read_benchmarks(folder: str | Path) -> pd.DataFrame:
    """Return the newest rows of each benchmark on each machine, from a folder's CSV files; no rows if it is absent."""
    paths = sorted(Path(folder).glob("*.csv"))
    if not paths:
        return pd.DataFrame(columns=COLUMNS)
    rows = pd.concat([pd.read_csv(path, dtype=TEXT).assign(file=path.name) for path in paths])
    rows["malloc"] = rows["malloc"].fillna("")
    newest = rows.groupby([*MACHINE, "name"])["date"].transform("max") == rows["date"]
    return rows[newest].reset_index(drop=True)[COLUMNS]


def by_machine(results: pd.DataFrame, kind: str | None = None) -> list[tuple[str, pd.DataFrame]]:
    """Return each measured machine, in words, with its rows; `kind`, "cpu" or "cuda", selects one kind of machine."""
    wanted = results if kind is None else results[results["kind"] == kind]
    return [
        (machine_in_words(device, threads) + (", malloc tuned" if malloc else ""), rows)
        for (_, device, threads, malloc), rows in wanted.groupby(MACHINE)
    ]


def rows_where(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Return the rows that have these values."""
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows
