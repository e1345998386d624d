"""What the grids' runs ended at, and what a grid asks for that has no run so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dcil.lab.evidence import claims
from dcil.lab.runs.frames import spread, variant
from dcil.lab.runs.names import label
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


def _settings(planned: Sequence[Planned]) -> dict[tuple, list[Planned]]:
    """Return a grid's runs by what they share but for the seed: the fields of `KEY`, and the variant."""
    found: dict[tuple, list[Planned]] = {}
    for run in planned:
        config = run.config.as_dict()
        found.setdefault((*(config[k] for k in KEY), variant(config)), []).append(run)
    return found


def _pruned(scope: str, sparsity: float) -> str:
    return f"{100 * sparsity:g}" + (" of filters" if scope == "filter" else "") if sparsity else ""


def table(planned: Sequence[Planned], records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each setting and variant of a grid that has a run: where it ended, n of how many seeds.

    Last epoch of the deployed pass and of a second pass, mean ± sample deviation (percent), beside the authors' logs.
    A column in which nothing stands is left out.
    """
    ids = {r["run_id"]: r for r in records if r["status"] == "complete"}
    lines = []
    for (dataset, model, scope, sparsity, epochs, name), runs in _settings(planned).items():
        done = [ids[run.run_id] for run in runs if run.run_id in ids]
        if not done:
            continue
        ends = [[end["last"]["top1"] for end in r["final"]["passes"].values()] for r in done]
        second = [pair[1] for pair in ends if len(pair) > 1]
        lines.append(
            {
                "method": label(name),
                "last epoch, %": spread(pd.Series([pair[0] for pair in ends])),
                "n": f"{len(done)} of {len(runs)}",
                "sparsity, %": _pruned(scope, sparsity),
                "second pass, %": spread(pd.Series(second)) if second else "",
                "authors' logs, %": logged(dataset, model, sparsity, scope) if name.startswith("dcil") else "",
                "data set": dataset,
                "network": model,
                "epochs": epochs,
            }
        )
    found = pd.DataFrame(lines)
    return found.loc[:, (found != "").any()] if lines else found


def without_run(planned: Sequence[Planned], records: Sequence[dict[str, Any]]) -> list[str]:
    """Return in words each setting and variant of a grid that has no run so far."""
    ids = {r["run_id"] for r in records if r["status"] == "complete"}
    return [
        f"{label(name)}, {_pruned(scope, sparsity) or '0'} %, {model}, {dataset}, {epochs} epochs"
        for (dataset, model, scope, sparsity, epochs, name), runs in _settings(planned).items()
        if not any(run.run_id in ids for run in runs)
    ]


def coverage(planned: Sequence[Planned], records: Sequence[dict[str, Any]]) -> str:
    """Return in words how many of a grid's runs have a record."""
    ids = {r["run_id"] for r in records if r["status"] == "complete"}
    return f"{sum(run.run_id in ids for run in planned)} of {len(planned)} runs have a record"
