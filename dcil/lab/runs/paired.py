"""Two variants compared at the same seeds: paired differences, intervals, equivalence, and how many seeds it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TypeAlias

import pandas as pd

from dcil.errors import DcilError
from dcil.lab.runs.compared import SEEDS
from dcil.lab.runs.frames import MISSING, spread
from dcil.lab.runs.names import label

Values: TypeAlias = "Sequence[float] | pd.Series"
MANY = 1000  # seeds: nobody will run more
NO_SEEDS = pd.Series(dtype=float)


def by_seed(table: pd.DataFrame, variant: str, which: str | None = None, value: str = "last") -> pd.Series:
    """Return a column of a variant's complete runs, by seed, for the pass `which` (by default the deployed one).

    `table` is a `runs_table` of one data set, network, tier, sparsity and kind of device; raises `DcilError` if a seed
    occurs twice.
    """
    mine = table[(table["status"] == "complete") & (table["variant"] == variant)]
    return one_value_a_seed(mine[mine["deployed"] if which is None else (mine["pass"] == which)], variant, value)


def one_value_a_seed(rows: pd.DataFrame, variant: str, value: str) -> pd.Series:
    """Return a column of a variant's rows, by seed; raises `DcilError` if a seed occurs twice."""
    twice = rows[rows["seed"].duplicated(keep=False)]
    if len(twice):
        raise DcilError(
            f"several runs of one seed for {variant!r}: {', '.join(twice['run'].unique())}; one is wanted "
            f"for seed {', '.join(map(str, twice['seed'].unique()))}: choose records of one data set, "
            "network, tier, sparsity, precision and kind of device"
        )
    return rows.set_index("seed")[value]


def differences(table: pd.DataFrame, a: str, b: str, value: str = "last") -> pd.Series:
    """Return, by seed, the value of variant `a` minus that of `b`, each in its deployed pass; see `by_seed`."""
    return gap_by_seed({name: by_seed(table, name, value=value) for name in (a, b)}, a, b)


def gap_by_seed(found: Mapping[str, pd.Series], a: str, b: str) -> pd.Series:
    """Return the values of `a` minus those of `b`, of values by name and seed, at the seeds that both have."""
    return (found.get(a, NO_SEEDS) - found.get(b, NO_SEEDS)).dropna()


def t_interval(differences: Values, level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean of paired differences and its t confidence interval (mean, low, high).

    The interval is NaN below two differences, the mean is NaN without any.
    """
    from scipy.special import stdtrit  # the quantile of Student's t

    values, nan = list(differences), math.nan
    if len(values) < 2:
        return (values[0] if values else nan), nan, nan
    mean = fmean(values)
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def equivalent(differences: Values, margin: float) -> bool | None:
    """Return whether two one-sided t tests at 5 % (TOST) show the mean difference to be within ±`margin`.

    Equivalently, whether the 90 % interval lies inside ±margin (Schuirmann 1987). None below two differences.
    """
    _, low, high = t_interval(differences, 0.9)
    return None if math.isnan(low) else -margin < low and high < margin


def p_difference(differences: Values) -> float:
    """Return the two-sided p-value of a paired t test for no difference; NaN below two differences.

    It is 1 if every difference is 0, as between runs that are the same to the last bit; there SciPy returns NaN.
    """
    from scipy.stats import ttest_1samp

    values = list(differences)
    if len(values) < 2:
        return math.nan
    return float(ttest_1samp(values, 0).pvalue) if any(values) else 1.0


def p_equivalence(differences: Values, margin: float) -> float:
    """Return the p-value of `equivalent`, the larger of its two one-sided tests'; NaN below two differences."""
    from scipy.stats import ttest_1samp

    if len(differences) < 2:
        return math.nan
    values = list(differences)
    return float(
        max(
            ttest_1samp(values, -margin, alternative="greater").pvalue,
            ttest_1samp(values, margin, alternative="less").pvalue,
        )
    )


def welch_interval(a: Values, b: Values) -> tuple[float, float, float]:
    """Return the difference of two means with Welch's unpaired 95 % t interval (mean, low, high).

    The ends are NaN if either side has fewer than two values.
    """
    from scipy.stats import ttest_ind

    if min(len(a), len(b)) < 2:
        return (fmean(a) - fmean(b) if len(a) and len(b) else math.nan), math.nan, math.nan
    ends = ttest_ind(list(a), list(b), equal_var=False).confidence_interval(0.95)
    return fmean(a) - fmean(b), float(ends.low), float(ends.high)


def seeds_needed_in_words(differences: Values, margin: float) -> str:
    """Return how many paired seeds a test needs to detect a mean difference of `margin` with 80 % power.

    From the noncentral t distribution of a two-sided paired test at 5 %, with the standard deviation of the differences
    given; "unknown" below two of them. Few seeds estimate that deviation poorly, so the result is an order of
    magnitude. The search ends at `MANY`.
    """
    from scipy.stats import nct, t

    if len(differences) < 2:
        return "unknown"
    effect = margin / max(stdev(list(differences)), 1e-12)
    for n in range(2, MANY):
        limit, shift = t.ppf(0.975, n - 1), effect * n**0.5
        if 1 - nct.cdf(limit, n - 1, shift) + nct.cdf(-limit, n - 1, shift) >= 0.8:
            return str(n)
    return f"over {MANY:,}"


def signed_interval(mean: float, low: float, high: float, digits: int = 2) -> str:
    """Return text such as "+0.40 (-0.10 to +0.90)", the mean alone if it has no interval, "not run" if it is NaN.

    >>> signed_interval(0.1, -0.001, 0.2), signed_interval(0.1, math.nan, math.nan), signed_interval(*3 * [math.nan])
    ('+0.10 (+0.00 to +0.20)', '+0.10', 'not run')
    """
    if math.isnan(mean):
        return MISSING
    return f"{mean:+z.{digits}f}" + ("" if math.isnan(low) else f" ({low:+z.{digits}f} to {high:+z.{digits}f})")


def paired_table(table: pd.DataFrame, baseline: str, variants: Sequence[str], margin: float) -> pd.DataFrame:
    """Return one row for each variant that ran: n, its mean, and the baseline minus it at equal seeds.

    The mean is over the same n seeds as the difference; of a variant without a seed in common with the baseline, over
    its own. The difference comes with its 95 % interval, the conclusion at `margin` (points, fixed beforehand), and how
    many seeds it takes to detect that margin. Variants that did not run have no row: see `variants_without_run`.
    """
    lasts = {variant: by_seed(table, variant) for variant in (baseline, *variants)}
    return against_table(lasts, baseline, variants, margin)


def against_table(lasts: Mapping[str, pd.Series], baseline: str, wanted: Sequence[str], margin: float) -> pd.DataFrame:
    """Return the rows of `paired_table`, from last-epoch top-1 (%) by name and seed."""
    name, rows = label(baseline), []
    for other in wanted:
        mine = lasts.get(other, NO_SEEDS)
        if mine.empty:
            continue
        gaps = gap_by_seed(lasts, baseline, other)
        itself = other == baseline
        alone = itself or gaps.empty
        rows.append(
            {
                "method": label(other),
                "n": len(gaps),
                "last epoch, %": spread(mine[gaps.index] if len(gaps) else mine),
                f"{name} minus it, points": "" if alone else signed_interval(*t_interval(gaps)),
                f"{name} ends": "" if itself else conclusion(gaps, margin),
                f"seeds to show {margin:g}": "" if alone else seeds_needed_in_words(gaps, margin),
            }
        )
    return pd.DataFrame(rows)


def variants_without_run(table: pd.DataFrame, variants: Sequence[str]) -> list[str]:
    """Return the labels of those variants that have no complete run in the table."""
    ran = set(table.loc[table["status"] == "complete", "variant"])
    return [label(variant) for variant in variants if variant not in ran]


def conclusion(gaps: Values, margin: float) -> str:
    """Return in words what paired differences a − b show: that a ends higher or lower, or else what is known so far.

    Within noise, it says so if an advantage of a as large as the margin is ruled out.
    """
    if len(gaps) < SEEDS:
        return "no seed in common" if len(gaps) == 0 else f"too few seeds ({len(gaps)} of {SEEDS})"
    _, low, high = t_interval(gaps)
    if equivalent(gaps, margin):
        return f"equivalent within ±{margin:g}"
    if low > 0 or high < 0:
        return "higher" if low > 0 else "lower"
    return "within noise" + (f" (not {margin:g} higher)" if high < margin else "")


def standing(concluded: str) -> str:
    """Return a `conclusion` as the verb of a sentence, to be followed by the name of what was compared with.

    >>> standing("higher"), standing("within noise"), standing("equivalent within ±0.3"), standing("no seed in common")
    ('ends above', 'is within noise against', 'is equivalent within ±0.3 to', 'has no seed in common with')
    """
    if concluded in ("higher", "lower"):
        return {"higher": "ends above", "lower": "ends below"}[concluded]
    first = concluded.split()[0]
    verb = "has" if first in ("no", "too") else "is"
    return f"{verb} {concluded} {({'no': 'with', 'equivalent': 'to'}).get(first, 'against')}"
