"""What the grids' runs ended at, one row for each thing a grid asks for, whether or not it was run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dcil.lab.evidence import claims
from dcil.lab.runs.frames import MISSING, spread, variant
from dcil.lab.sweep.grid import Planned

KEY = ("dataset", "model", "scope", "sparsity", "epochs")


def logged(dataset: str, model: str, sparsity: float, scope: str) -> str:
    """Return last and best epoch of the authors' runs of DCIL for a setting, or nothing where they logged none."""
    asked = {"dataset": dataset, "model": model, "sparsity": sparsity, "scope": scope}
    for setting in claims.LOGS["settings"]:
        if all(setting[k] == v for k, v in asked.items()):
            return f"{setting['last'][0]:.2f} last, {setting['best_any'][0]:.2f} best"
    return ""


def made(planned: Sequence[Planned], records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of runs that a grid asks for."""
    ids = {run.run_id for run in planned}
    return [r for r in records if r["run_id"] in ids]


def table(planned: Sequence[Planned], records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each setting and variant that a grid asks for: n of how many seeds, and where they ended.

    Last epoch of the deployed pass and of a second pass, mean ± sample deviation (percent), beside the authors' logs.
    """
    ids = {r["run_id"]: r for r in records if r["status"] == "complete"}
    rows: dict[tuple, list[Planned]] = {}
    for run in planned:
        config = run.config.as_dict()
        rows.setdefault((*(config[k] for k in KEY), variant(config)), []).append(run)
    lines = []
    for (dataset, model, scope, sparsity, epochs, name), runs in rows.items():
        done = [ids[run.run_id] for run in runs if run.run_id in ids]
        ends = [[end["last"]["top1"] for end in r["final"]["passes"].values()] for r in done]
        second = [pair[1] for pair in ends if len(pair) > 1]
        lines.append(
            {
                "data set": dataset,
                "network": model,
                "epochs": epochs,
                "variant": name,
                "sparsity, %": f"{100 * sparsity:g}" + (" of filters" if scope == "filter" else "") if sparsity else "",
                "n": f"{len(done)} of {len(runs)}",
                "last epoch, %": spread(pd.Series([pair[0] for pair in ends])) if ends else MISSING,
                "second pass, %": spread(pd.Series(second)) if second else "",
                "authors' logs, %": logged(dataset, model, sparsity, scope) if name.startswith("dcil") else "",
            }
        )
    return pd.DataFrame(lines)


def begun(planned: Sequence[Planned], records: Sequence[dict[str, Any]]) -> str:
    """Return in words which rows of `table` have a run, with how many of their seeds, and how many rows have none."""
    rows = table(planned, records)
    some = rows[rows["last epoch, %"] != MISSING]
    said = []
    for _, row in some.iterrows():
        share = row["sparsity, %"]
        at = f" with {share.replace(' ', ' % ', 1) if ' ' in share else f'{share} %'} pruned" if share else ""
        said.append(
            f"{row['variant']}{at}, {row['network']} on {row['data set']}, {row['n']} seeds: "
            f"{row['last epoch, %']} % at the last epoch"
        )
    rest = len(rows) - len(some)
    return "; ".join(said or ["nothing has run"]) + (f". {rest} more settings are planned." if rest else ".")


def coverage(planned: Sequence[Planned], records: Sequence[dict[str, Any]]) -> str:
    """Return in words how many of a grid's runs have a record."""
    ids = {r["run_id"] for r in records if r["status"] == "complete"}
    return f"{sum(run.run_id in ids for run in planned)} of {len(planned)} runs have a record"
