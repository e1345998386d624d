"""What the grids' runs ended at, one row for each thing a grid asks for, whether or not it was run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from dcil.lab.evidence.authors_logs import logged_setting, logs_in_words
from dcil.lab.runs.frames import MISSING, spread
from dcil.lab.sweep.grid import Planned
from dcil.run_record import Run, variant


def recorded_runs(planned: Sequence[Planned], runs: Iterable[Run]) -> list[Run]:
    """Return the runs that a grid asks for."""
    ids = {plan.run_id for plan in planned}
    return [run for run in runs if run.run_id in ids]


def grid_table(planned: Sequence[Planned], runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each setting and variant that a grid asks for: n of how many seeds, and where they ended.

    Last epoch of the deployed pass and of a second pass, mean ± sample deviation (percent), beside the authors' logs.
    """
    by_id = {run.run_id: run for run in runs if run.complete}
    settings: dict[tuple, list[Planned]] = {}
    for plan in planned:
        c = plan.config
        setting = c.dataset, c.model, c.scope, c.sparsity, c.epochs, variant(c)
        settings.setdefault(setting, []).append(plan)
    rows = []
    for (dataset, model, scope, sparsity, epochs, name), plans in settings.items():
        done = [by_id[plan.run_id] for plan in plans if plan.run_id in by_id]
        second = [end.last for run in done for end in list(run.by_pass.values())[1:]]
        logged = logged_setting(dataset=dataset, model=model, sparsity=sparsity, scope=scope)
        of_filters = " of filters" if scope == "filter" else ""
        rows.append(
            {
                "data set": dataset,
                "network": model,
                "epochs": epochs,
                "variant": name,
                "sparsity, %": f"{100 * sparsity:g}{of_filters}" if sparsity else "",
                "n": f"{len(done)} of {len(plans)}",
                "last epoch, %": spread([run.last for run in done]),
                "second pass, %": spread(second) if second else "",
                "authors' logs, %": logs_in_words(logged) if name.startswith("dcil") else "",
            }
        )
    return pd.DataFrame(rows)


def begun_in_words(planned: Sequence[Planned], runs: Iterable[Run]) -> str:
    """Return in words which rows of `grid_table` have a run, with how many of their seeds, and how many have none."""
    rows = grid_table(planned, runs)
    some = rows[rows["last epoch, %"] != MISSING]
    said = []
    for _, row in some.iterrows():
        share, _, unit = row["sparsity, %"].partition(" ")
        at = f" with {share} %{' ' if unit else ''}{unit} pruned" if share else ""
        said.append(
            f"{row['variant']}{at}, {row['network']} on {row['data set']}, {row['n']} seeds: "
            f"{row['last epoch, %']} % at the last epoch"
        )
    rest = len(rows) - len(some)
    return "; ".join(said or ["nothing has run"]) + (f". {rest} more settings are planned." if rest else ".")


def coverage_in_words(planned: Sequence[Planned], runs: Iterable[Run]) -> str:
    """Return in words how many of a grid's runs have a record."""
    done = [run for run in recorded_runs(planned, runs) if run.complete]
    return f"{len(done)} of {len(planned)} runs have a record"
