"""How long the runs behind each figure took, by the grids that ask for them, and which runs fit into a given time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from dcil.lab.runs.frames import MISSING, times_in_words
from dcil.lab.runs.names import data_set_label, label, network_label
from dcil.lab.runs.sources import machine_in_words
from dcil.lab.sweep.grid import Planned
from dcil.lab.wording import number_of
from dcil.run_record import Run

FIGURE_COLUMNS = ["figure or table", "runs with a record", "device-hours", "peak memory, MiB", "on"]
TIME_COLUMNS = ["minutes", "one run of", "all recorded runs of"]


def runs_by_figure(planned: Sequence[Planned], runs: Iterable[Run]) -> dict[str, tuple[int, list[Run]]]:
    """Return, for each figure or table that grids serve, the number of runs asked for, and the recorded ones."""
    by_id = {run.run_id: run for run in runs}
    asked: Counter[str] = Counter()
    made: dict[str, list[Run]] = {}
    for plan in planned:
        for figure in plan.serves:
            asked[figure] += 1
            made.setdefault(figure, [])
            if plan.run_id in by_id:
                made[figure].append(by_id[plan.run_id])
    return {figure: (asked[figure], its) for figure, its in made.items()}


def device_hours_table(planned: Sequence[Planned], runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each figure or table that grids serve: how many of its runs are recorded, and their cost.

    Device-hours are wall time, summed over runs; a run that serves two figures counts in both. Runs that shared their
    device are counted, but their time is not included, as it is not theirs alone. Memory is the largest of all runs.
    """
    rows = []
    for figure, (asked, made) in runs_by_figure(planned, runs).items():
        hours = [run.cost.own_time_s / 3600 for run in made]
        devices = {machine_in_words(run.environment.device, run.environment.threads) for run in made}
        rows.append(
            (
                figure,
                f"{len(made)} of {asked}",
                times_in_words(hours, lambda own: f"{sum(own):.1f}") or MISSING,
                f"{max(run.cost.mem_mib for run in made):,.0f}" if made else "",
                "; ".join(sorted(devices)),
            )
        )
    return pd.DataFrame(rows, columns=FIGURE_COLUMNS)


def fitting_table(minutes: Sequence[float], planned: Sequence[Planned], runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each time limit: the kinds of runs that fit into it, and the figures all of whose runs do.

    A row lists only what does not fit into the shorter limits before it. A kind of run takes as long as its slowest
    record; a figure takes the sum of its recorded runs, one after the other. Runs that shared their device have no time
    of their own: a figure with such a run is left out.
    """
    complete = [run for run in runs if run.complete]
    slowest: dict[tuple[str, str], float] = {}
    for run in complete:
        c = run.config
        what = f"{data_set_label(c.dataset)}, {network_label(c.model)}, {number_of(c.epochs, 'epoch')}"
        took = run.cost.own_time_s / 60
        if not math.isnan(took):
            name = label(run.variant)
            slowest[what, name] = max(slowest.get((what, name), 0), took)
    figures: dict[str, float] = {}
    for figure, (_, made) in runs_by_figure(planned, complete).items():
        if made:
            figures[figure] = sum(run.cost.own_time_s for run in made) / 60
    rows: list[tuple[str, str, str]] = []
    before = -math.inf
    for limit in sorted(minutes):
        variants: dict[str, list[str]] = {}
        for (what, variant), longest in sorted(slowest.items()):
            if before < longest <= limit:
                variants.setdefault(what, []).append(variant)
        single = [f"{what}: {', '.join(names)}" for what, names in variants.items()]
        whole = [figure for figure, longest in figures.items() if before < longest <= limit]
        nothing = "nothing more" if rows else "none"
        rows.append((f"{limit:g}", "; ".join(single) or nothing, "; ".join(whole) or nothing))
        before = limit
    return pd.DataFrame(rows, columns=TIME_COLUMNS)
