"""What the runs behind each figure took, by the grids that ask for them, and what fits into the time a reader has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from dcil.lab.runs.frames import MISSING, variant, with_shared
from dcil.lab.runs.sources import counted
from dcil.lab.sweep.grid import Planned
from dcil.records import own_time_s

FIGURE_COLUMNS = ["figure or table", "runs with a record", "device-hours", "peak memory, MiB", "on"]


def served(
    planned: Sequence[Planned], records: Sequence[dict[str, Any]]
) -> dict[str, tuple[int, list[dict[str, Any]]]]:
    """Return for each figure or table that grids serve how many runs they ask for, and the records there are."""
    known = {r["run_id"]: r for r in records}
    asked: dict[str, list[str]] = {}
    for run in planned:
        for figure in run.serves:
            asked.setdefault(figure, []).append(run.run_id)
    return {figure: (len(ids), [known[run] for run in ids if run in known]) for figure, ids in asked.items()}


def by_figure(planned: Sequence[Planned], records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each figure or table that grids serve: runs made of those asked for, and what they took.

    Device-hours are wall time, summed over runs; a run that serves two figures counts in both. Runs that shared their
    device are only counted: their time is not theirs alone. Memory is the largest.
    """
    lines = []
    for figure, (asked, made) in served(planned, records).items():
        devices = {f"{r['environment']['device']}, {counted(r['environment']['threads'], 'thread')}" for r in made}
        lines.append(
            (
                figure,
                f"{len(made)} of {asked}",
                with_shared([own_time_s(r) / 3600 for r in made], lambda hours: f"{sum(hours):.1f}") or MISSING,
                f"{max(r['cost']['mem_mib'] for r in made):,.0f}" if made else "",
                "; ".join(sorted(devices)),
            )
        )
    lines.sort(key=lambda line: line[2] == MISSING)  # what was run comes first
    return pd.DataFrame(lines, columns=FIGURE_COLUMNS)


def within(minutes: Sequence[float], planned: Sequence[Planned], records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each time: which kinds of runs end within it, and for which figures every recorded run does.

    By the slowest record of a kind, and for a figure by the sum of its records, one run after the other. Records of
    runs that shared their device say nothing of it: a figure with such a record is left out.
    """
    complete = [r for r in records if r["status"] == "complete"]
    slowest: dict[tuple[str, str], float] = {}
    for r in complete:
        c = r["config"]
        kind = f"{c['dataset']}, {c['model']}, {counted(c['epochs'], 'epoch')}", variant(c)
        if not math.isnan(took := own_time_s(r) / 60):
            slowest[kind] = max(slowest.get(kind, 0), took)
    figures = {
        figure: sum(own_time_s(r) for r in made) / 60 for figure, (_, made) in served(planned, complete).items() if made
    }
    rows = []
    for limit in minutes:
        fitting: dict[str, list[str]] = {}
        for (what, name), longest in sorted(slowest.items()):
            if longest <= limit:
                fitting.setdefault(what, []).append(name)
        whole = [figure for figure, longest in figures.items() if longest <= limit]
        single = "; ".join(f"{what}: {', '.join(names)}" for what, names in fitting.items())
        rows.append(
            {
                "minutes": f"{limit:g}",
                "one run of": single or "none",
                "all recorded runs of": "; ".join(whole) or "no figure",
            }
        )
    return pd.DataFrame(rows)
