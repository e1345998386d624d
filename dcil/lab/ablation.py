"""What each ingredient of DCIL is worth: variants that lack or change one, beside DCIL at equal seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from dcil.lab.pairs import differences, interval, signed
from dcil.methods import METHODS

COLUMNS = ["variant", "n", "mean", "low", "high"]
# What a pass's gradient reaches, in words, by rule (`dcil.rules`).
REACHES = {"kept": "kept weights", "straight_through": "all weights", "refined": "pruned weights",
           "dense": "all weights", "pruned_only": "pruned weights, alone in the network",
           "observed": "none; only its norms and head"}  # fmt: skip


def design(names: Sequence[str]) -> pd.DataFrame:
    """Return what each variant's passes train, what they share and what they teach, from the table of methods.

    A name may carry settings, as in "dcil, dense_every 4".
    """
    rows = []
    for name in names:
        method, _, settings = name.partition(", ")
        m = METHODS[method]
        rules = [*m.rules, None][:2]
        rows.append({"variant": name, "what it is": m.summary + (f"; {settings}" if settings else ""),
                     "the sparse pass trains": REACHES[rules[0]],
                     "the second pass trains": REACHES[rules[1]] if rules[1] else "there is none",
                     "each pass has its own": m.own if rules[1] else ""})  # fmt: skip
    return pd.DataFrame(rows)


def effects(table: pd.DataFrame, variants: Sequence[str], baseline: str = "dcil") -> pd.DataFrame:
    """Return for each variant the mean difference to the baseline (points) with its 95 % interval, NaN if unknown."""
    rows = []
    for name in variants:
        gaps = differences(table, name, baseline)
        rows.append((name, len(gaps), *interval(gaps)))
    return pd.DataFrame(rows, columns=COLUMNS)


def sentence(table: pd.DataFrame, variants: Sequence[str], baseline: str = "dcil") -> str:
    """Return in words which variant falls furthest behind, and whether that is settled."""
    found = effects(table, variants, baseline)
    found = found[found["n"] > 0]
    if found.empty:
        return f"**Not run yet**: no variant shares a seed with {baseline}."
    worst = found.loc[found["mean"].idxmin()]
    gap = signed(worst["mean"], worst["low"], worst["high"])
    name, count = worst["variant"], len(found)
    if worst["mean"] >= 0:
        return (
            f"None of the {count} variant(s) that were run ends behind {baseline}. The lowest is {name}: {gap} points."
        )
    lead = f"Of the {count} variant(s) that were run, **{name}** ends furthest from {baseline}: {gap} points"
    if math.isnan(worst["low"]):
        return f"{lead}, at one seed. **Not settled.**"
    settled = worst["high"] < 0
    return f"{lead}, over {worst['n']} paired seeds. " + (
        "The 95 % interval excludes zero: what it changes matters most here." if settled
        else "The 95 % interval contains zero: **not settled**."
    )  # fmt: skip
