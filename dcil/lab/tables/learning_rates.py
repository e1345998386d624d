"""What another learning rate would make of a method, beside the one that all methods train with."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dcil.lab.runs.frames import spread
from dcil.lab.runs.names import label
from dcil.lab.runs.paired import by_seed
from dcil.lab.wording import listed


def at_rate(method: str, rate: float, usual: float) -> str:
    """Return the variant of a method's runs at a learning rate.

    >>> at_rate("ste", 0.2, usual=0.1), at_rate("ste", 0.1, usual=0.1)
    ('ste, lr 0.2', 'ste')
    """
    return method if rate == usual else f"{method}, lr {rate:g}"


def learning_rates_table(
    table: pd.DataFrame, methods: Sequence[str], others: Sequence[float], usual: float
) -> pd.DataFrame:
    """Return one row for each method that ran at another rate: last-epoch top-1 (%) of the deployed pass at each rate.

    All means of a row are over the `n` seeds that every rate of the row has; a rate without a run has an empty cell.
    `table` is as in `dcil.lab.runs.paired.by_seed`.
    """
    rows = []
    for method in methods:
        ran = _by_rate(table, method, others, usual)
        if ran.empty or set(ran) == {usual}:
            continue
        tops = {f"lr {rate:g}, %": spread(ran[rate]) if rate in ran else "" for rate in sorted([*others, usual])}
        rows.append({"method": label(method), "n": len(ran), **tops})
    return pd.DataFrame(rows)


def best_rates_in_words(
    table: pd.DataFrame, baseline: str, methods: Sequence[str], others: Sequence[float], usual: float
) -> str:
    """Return what each method gains by its best rate, and the baseline minus each when all have their best one.

    Means are over the seeds that all rates of all these methods have; a method that lacks a rate is left out, and
    without the baseline the text is "". `table` is as in `dcil.lab.runs.paired.by_seed`.
    """
    ran = {name: _by_rate(table, name, others, usual) for name in (baseline, *methods)}
    full = {name: tops for name, tops in ran.items() if set(tops) == {usual, *others}}
    if baseline not in full or len(full) < 2:
        return ""
    seeds = sorted(set.intersection(*(set(by_rate.index) for by_rate in full.values())))
    if not seeds:
        return ""
    means = {name: by_rate.loc[seeds].mean() for name, by_rate in full.items()}
    gains = listed([f"{label(name)} {mean.max() - mean[usual]:.2f}" for name, mean in means.items()])
    best = means.pop(baseline).max()
    gaps = listed([f"minus {label(name)} {best - mean.max():+z.2f}" for name, mean in means.items()])
    return (
        f"At its best rate instead of the usual one a method gains, in points: {gains}. With each at its best, "
        f"{label(baseline)} {gaps} points, n = {len(seeds)}."
    )


def places_in_words(table: pd.DataFrame, methods: Sequence[str], others: Sequence[float], usual: float) -> str:
    """Return how the seed that ran at other rates stands at the usual rate: above how many of the method's other seeds.

    Of a method with one such seed, and others at the usual rate. `table` is as in `dcil.lab.runs.paired.by_seed`.
    """
    places = []
    for method in methods:
        seeds, tops = _by_rate(table, method, others, usual).index, by_seed(table, method)
        if len(seeds) == 1 and len(tops) > 1:
            below = int((tops.drop(seeds) < tops[seeds[0]]).sum())
            places.append(f"{label(method)} {below} of {len(tops) - 1}")
    return f"At the usual rate, this seed ends above so many of the other seeds: {listed(places)}." if places else ""


def _by_rate(table: pd.DataFrame, method: str, others: Sequence[float], usual: float) -> pd.DataFrame:
    """Return last-epoch top-1 (%), a row for each seed that all rates have, a column for each rate that ran."""
    lasts = {rate: by_seed(table, at_rate(method, rate, usual)) for rate in sorted([*others, usual])}
    return pd.DataFrame({rate: tops for rate, tops in lasts.items() if len(tops)}).dropna()
