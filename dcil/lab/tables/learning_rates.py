"""What another learning rate would make of a method, beside the one that all methods train with."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dcil.lab.runs.frames import spread
from dcil.lab.runs.names import label
from dcil.lab.runs.paired import by_seed


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
        lasts = {rate: by_seed(table, at_rate(method, rate, usual)) for rate in sorted([*others, usual])}
        ran = pd.DataFrame({rate: tops for rate, tops in lasts.items() if len(tops)}).dropna()
        if ran.empty or set(ran) == {usual}:
            continue
        tops = {f"lr {rate:g}, %": spread(ran[rate]) if rate in ran else "" for rate in lasts}
        rows.append({"method": label(method), "n": len(ran), **tops})
    return pd.DataFrame(rows)
