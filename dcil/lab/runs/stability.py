"""How steadily a run trained: stability figures of one record, and its course over the epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean

import pandas as pd

from dcil.lab.runs import paired
from dcil.lab.runs.frames import spread
from dcil.lab.wording import listed
from dcil.run_record import Run

# What each figure measures, as pages word it; accuracies are those of the deployed pass.
FIGURES = {
    "jitter_high": "mean |change of test accuracy| from epoch to epoch, before the learning rate first falls, points",
    "jitter_mid": "mean |change of test accuracy|, between its first and its last fall, points",
    "jitter_low": "mean |change of test accuracy|, after its last fall, points",
    "flips": "share of kept weights exchanged at a choice of masks, once the target is set, %",
    "overlap_mid": "Jaccard overlap of the mask at the target's first epoch with the last one",
    "ever_kept": "share of weights kept at some time since the target was set, per weight kept in the end",
    "norm_gap": "what re-estimated norm statistics add to the last epoch's accuracy, points",
    "norm_gap_mid": "what re-estimated norm statistics add in the middle of the run, points",
    "cosine": "cosine of STE's and the refined gradient on pruned weights, mean over the run",
    "norm_ratio": "norm of STE's gradient over that of the refined one on pruned weights, mean over the run",
}


def jitter(top1: Sequence[float]) -> float:
    """Return the mean absolute change from one epoch to the next, in the values' unit; NaN below two epochs.

    The authors' logs are measured in the same way.

    >>> jitter([10.0, 30.0, 20.0])
    15.0
    """
    return fmean(abs(after - before) for before, after in pairwise(top1)) if len(top1) > 1 else math.nan


def exchange_rates(run: Run) -> list[float]:
    """Return, for each epoch, the share of kept weights exchanged per mask refresh, in percent; NaN without a refresh.

    An exchange is one weight pruned and one revived. Flips by which the sparsity rose or fell over the epoch do not
    count.
    """
    total = run.cost.nonzeros["conv"] / max(1 - run.sparsity, 1e-9) if run.curve else 0
    before, shares = 0.0, []
    for epoch in run.curve:
        swapped = max(round(epoch.flips - total * abs(epoch.sparsity - before)), 0) / 2
        kept = total * (1 - epoch.sparsity)
        shares.append(100 * swapped / epoch.refreshes / kept if epoch.refreshes else math.nan)
        before = epoch.sparsity
    return shares


def exchanged_an_epoch(run: Run, epochs: slice = slice(None)) -> float:
    """Return the share of kept weights exchanged per epoch (%), summed over its mask refreshes; the mean over `epochs`.

    This compares methods with different mask periods. A weight that comes back twice counts twice.
    """
    done = [(rate, epoch.refreshes) for rate, epoch in zip(exchange_rates(run), run.curve, strict=True)]
    return _mean([rate * choices if choices else 0.0 for rate, choices in done[epochs]])


def stability_figures(run: Run) -> dict[str, float]:
    """Return a run's value of each of `FIGURES`; NaN where the run did not measure it."""
    name, top1 = run.deployed, [epoch.test[run.deployed] for epoch in run.curve]
    falls = run.config.milestones or (len(top1), 0)
    at_target = [e for e in run.curve if run.config.sparsity and e.target_sparsity == run.config.sparsity]
    settled = {epoch.epoch for epoch in at_target[1:]}  # in the first of them the masks still move to the target
    swaps = [rate for epoch, rate in enumerate(exchange_rates(run)) if epoch in settled and not math.isnan(rate)]
    gaps = {e.epoch: e.reestimated[name] - e.test[name] for e in run.curve if e.reestimated}
    end = run.curve[-1]
    return {
        "jitter_high": jitter(top1[: falls[0]]),
        "jitter_mid": jitter(top1[falls[0] : falls[-1]]),
        "jitter_low": jitter(top1[falls[-1] :]),
        "flips": _mean(swaps),
        "overlap_mid": run.overlap_with_last.get(at_target[0].epoch, math.nan) if at_target else math.nan,
        "ever_kept": end.ever_kept / (1 - end.sparsity),
        "norm_gap": gaps.pop(end.epoch, math.nan),
        "norm_gap_mid": next(iter(gaps.values()), math.nan),
        "cosine": _mean([e.gradients["cosine"] for e in run.curve if e.gradients]),
        "norm_ratio": _mean([e.gradients["norm_ratio"] for e in run.curve if e.gradients]),
    }


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def stability_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each complete run: its id, variant, seed and `FIGURES`."""
    rows = [
        {"run": run.run_id, "variant": run.variant, "seed": run.config.seed} | stability_figures(run)
        for run in runs
        if run.complete
    ]
    return pd.DataFrame(rows, columns=["run", "variant", "seed", *FIGURES])


def figure_by_seed(table: pd.DataFrame, variant: str, figure: str) -> pd.Series:
    """Return a variant's values of one of `FIGURES`, by seed; `table` is a `stability_table` of one setting."""
    return paired.one_value_a_seed(table[table["variant"] == variant], variant, figure)


def fewer_exchanges(runs: Iterable[Run], variant: str, baseline: str = "ste") -> pd.Series:
    """Return the share of a baseline's exchanges (`flips`) that a variant does without, at each seed that both have."""
    found = stability_table(run for run in runs if run.variant in (variant, baseline))
    return (1 - figure_by_seed(found, variant, "flips") / figure_by_seed(found, baseline, "flips")).dropna()


def stability_by_variant(
    runs: Iterable[Run], variants: Sequence[str], names: Sequence[str] = tuple(FIGURES)
) -> pd.DataFrame:
    """Return one row for each figure named: mean ± sample deviation of each variant over the same `n` seeds.

    They are the seeds at which all variants measured the figure that measured it at all; if there are none, each
    variant has its own, and `n` lists their numbers in the order of the columns. A variant without a run has no column;
    if none has a run, the table is empty.
    """
    found, rows = stability_table(runs), []
    variants = [variant for variant in variants if variant in set(found["variant"])]
    for name in names if variants else ():
        values = {variant: figure_by_seed(found, variant, name).dropna() for variant in variants}
        measured = [set(by_seed.index) for by_seed in values.values() if len(by_seed)]
        if common := sorted(set.intersection(*measured)) if measured else []:
            values = {variant: by_seed.reindex(common).dropna() for variant, by_seed in values.items()}
        digits = 2 if FIGURES[name].endswith("points") else 3  # accuracies have two everywhere
        counts = [str(len(by_seed)) for by_seed in values.values()]
        rows.append(
            {"figure": FIGURES[name]}
            | {variant: spread(by_seed, digits) for variant, by_seed in values.items()}
            | {"n": str(len(common)) if common else counts[0] if len(set(counts)) == 1 else listed(counts)}
        )
    return pd.DataFrame(rows)


DYNAMICS_COLUMNS = ["run", "variant", "seed", "epoch", "test", "exchanged", "overlap", "ever_kept", "cosine",
                    "norm_ratio"]  # fmt: skip


def dynamics_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each run and epoch; NaN if not measured.

    Columns: test top-1 (%), share of kept weights exchanged per mask refresh (%), overlap with the last mask, share
    ever kept (%), cosine and norm ratio of the two gradients.
    """
    rows = []
    for run in runs:
        for epoch, rate in zip(run.curve, exchange_rates(run), strict=True):
            rows.append(
                {
                    "run": run.run_id,
                    "variant": run.variant,
                    "seed": run.config.seed,
                    "epoch": epoch.epoch + 1,
                    "test": epoch.test[run.deployed],
                    "exchanged": rate,
                    "overlap": run.overlap_with_last.get(epoch.epoch, math.nan),
                    "ever_kept": 100 * epoch.ever_kept,
                    "cosine": epoch.gradients.get("cosine", math.nan),
                    "norm_ratio": epoch.gradients.get("norm_ratio", math.nan),
                }
            )
    return pd.DataFrame(rows, columns=DYNAMICS_COLUMNS)
