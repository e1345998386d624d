"""Methods at equal compute: how many multiply-accumulates (MACs) a run's training took, and what accuracy it reached.

MACs are counted as the machine executes them: dense kernels, a backward as two forwards, every pass that ran. Masks
save nothing, because no kernel of this trainer skips zeros.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import pandas as pd

from dcil.lab import wording
from dcil.lab.runs import names
from dcil.lab.runs.frames import at_sparsity
from dcil.lab.runs.paired import (
    against_table,
    gap_by_seed,
    one_value_a_seed,
    signed_interval,
    t_interval,
)
from dcil.run_record import Run

RIVALS = ("st3_stepwise", "gmp_stepwise", "ste", "rigl_returning")  # one pass a step, as their own papers define them
FIRST_RUN = ("st3", "gmp", "rigl")  # three of them as first run here; `dcil.methods` says how
#: How DCIL, two passes a step, computes as much as a rival: by the start of the claims' ids, in words, fairest first.
WAYS = {
    "larger-budget": "against twice the epochs",
    "equal-compute": "over half the epochs",
    "cheaper-steps": "with fewer dense passes",
}
SCHEDULE_COLUMNS = ["variant", "epochs", "cost", "n", "mean", "low", "high", "lasts"]
SPENT_COLUMNS = ["run", "variant", "seed", "epochs", "epoch", "macs", "test"]
NEGATIVE_COLUMNS = ["sparsity, %", "run", "ends behind", "at equal", "n", "run minus it, points"]


def claim_ids(way: str) -> dict[str, str]:
    """Return, by rival, the id of the claim that DCIL ends better at equal compute, in a way of `WAYS`.

    >>> claim_ids("larger-budget")["st3_stepwise"]
    'larger-budget-st3-stepwise'
    """
    return {rival: f"{way}-{rival.replace('_', '-')}" for rival in RIVALS}


def decided_ways(asked: Collection[str], decided: Collection[str]) -> list[str]:
    """Return the ways of `WAYS`, fairest first, of which some claims are asked and all of these decided, by their ids.

    >>> decided_ways(["cheaper-steps-ste", "equal-compute-ste", "equal-compute-st3"], ["equal-compute-ste"])
    []
    """
    by_way = {way: {name for name in asked if name.startswith(f"{way}-")} for way in WAYS}
    return [way for way, names in by_way.items() if names and names <= {*decided}]


def schedule_label(variant: str, epochs: int) -> str:
    """Return the label of a variant's runs of this many epochs."""
    return f"{variant}, {epochs} epochs"


def run_label(run: Run) -> str:
    """Return a run's label: its variant and its epochs."""
    return schedule_label(run.variant, run.config.epochs)


def spent_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each run and epoch: MACs spent so far, and test top-1 (%) of the deployed pass."""
    rows = []
    for run in runs:
        for done, epoch in enumerate(run.curve, start=1):
            spent, top1 = done * run.epoch_macs, epoch.test[run.deployed]
            rows.append((run.run_id, run.variant, run.config.seed, run.config.epochs, done, spent, top1))
    return pd.DataFrame(rows, columns=SPENT_COLUMNS)


def schedules_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each variant and length of schedule, cheapest first: the cost of training and its result.

    `cost` is the training's MACs as a multiple of those of the longest dense run, NaN without one. `mean`, `low` and
    `high` are the mean last-epoch top-1 (%) of the deployed pass over `n` seeds and its 95 % interval; `lasts` holds
    the value of each seed.
    """
    complete = [run for run in runs if run.complete]
    unit = max((run.macs for run in complete if run.variant == "dense"), default=math.nan)
    first: dict[str, Run] = {}
    for run in complete:
        first.setdefault(run_label(run), run)
    rows = []
    for label, lasts in lasts_by_label(complete).items():
        run = first[label]
        values = lasts.tolist()
        mean, low, high = t_interval(values)
        rows.append((run.variant, run.config.epochs, run.macs / unit, len(values), mean, low, high, values))
    return pd.DataFrame(rows, columns=SCHEDULE_COLUMNS).sort_values(["cost", "mean"], ignore_index=True)


def at_budget(runs: Iterable[Run], budget: float) -> list[Run]:
    """Return the runs whose training took `budget` MACs, to within 2 %."""
    return [run for run in runs if abs(run.macs / budget - 1) < 0.02]


def lasts_by_label(runs: Iterable[Run]) -> dict[str, pd.Series]:
    """Return complete runs' last-epoch top-1 (%) of the deployed pass, by label (see `run_label`) and seed.

    Raises `DcilError` if a seed occurs twice: the runs must be of one data set, network and precision.
    """
    rows = [(run_label(run), run.run_id, run.config.seed, run.last) for run in runs if run.complete]
    table = pd.DataFrame(rows, columns=["label", "run", "seed", "last"])
    by_label = table.groupby("label", sort=False)
    return {label: one_value_a_seed(mine, label, "last") for label, mine in by_label}


def budget_table(
    runs: Iterable[Run], budget: float, wanted: Sequence[str], baseline: str, margin: float
) -> pd.DataFrame:
    """Return one row for each wanted label (see `run_label`) with runs whose training took `budget` MACs, within 2 %.

    Columns as in `dcil.lab.runs.paired.paired_table`; `baseline` is a label.
    """
    return against_table(lasts_by_label(at_budget(runs, budget)), baseline, wanted, margin)


def labels_without_run(runs: Iterable[Run], budget: float, wanted: Sequence[str]) -> list[str]:
    """Return those of the wanted labels that no run of this budget has, as a page words them."""
    lasts = lasts_by_label(at_budget(runs, budget))
    return [names.label(label) for label in wanted if label not in lasts]


def half_epochs_gaps(runs: Iterable[Run], variant: str, epochs: int) -> pd.Series:
    """Return what halving the epochs does to a variant: last-epoch top-1 of the half schedule minus that of the whole.

    In points, at each seed that has both lengths.
    """
    lasts = lasts_by_label(run for run in runs if run.config.epochs in (epochs, epochs // 2))
    return gap_by_seed(lasts, schedule_label(variant, epochs // 2), schedule_label(variant, epochs))


def half_epochs_in_words(runs: Iterable[Run], variant: str, epochs: int) -> str:
    """Return `half_epochs_gaps` in words; "" if no seed has both lengths."""
    lost = half_epochs_gaps(runs, variant, epochs)
    if lost.empty:
        return ""
    return (
        f"Training for {epochs // 2} epochs in place of {epochs} moves {names.label(variant)} by "
        f"{signed_interval(*t_interval(lost))} points, whatever it is compared with, n = {len(lost)}."
    )


def twice_the_epochs_in_words(runs: Iterable[Run], variants: Sequence[str], epochs: int) -> str:
    """Return what twice the epochs do to each variant, in points at equal seeds; "" if none has both lengths."""
    found = list(runs)
    moved = {name: -half_epochs_gaps(found, name, 2 * epochs) for name in variants}
    said = [f"{names.label(n)} by {gaps.mean():+z.2f} (n = {len(gaps)})" for n, gaps in moved.items() if len(gaps)]
    return f"Training for {2 * epochs} epochs in place of {epochs} moves {wording.listed(said)} points." if said else ""


def negative_results(runs: Sequence[Run], baselines: Sequence[str], epochs: int) -> tuple[pd.DataFrame, list[Run]]:
    """Return one row for each label that ends behind a baseline in the mean over common seeds, and the runs concerned.

    A baseline is a variant trained for `epochs`; it is compared with runs of as many epochs, and of as many MACs.
    """
    rows: list[tuple] = []
    told: dict[str, Run] = {}
    for sparsity in sorted({run.config.sparsity for run in runs} - {0.0}):
        mine = at_sparsity(runs, sparsity)
        same_epochs = [run for run in mine if run.config.epochs == epochs]
        for baseline in (schedule_label(variant, epochs) for variant in baselines):
            for equal, group in _comparable(mine, same_epochs, baseline).items():
                lasts = lasts_by_label(group)
                for label in sorted(lasts):
                    gaps = gap_by_seed(lasts, label, baseline)
                    if gaps.sum() < 0:
                        points = signed_interval(*t_interval(gaps))
                        told_as = names.label(label), names.label(baseline)
                        rows.append((f"{100 * sparsity:g}", *told_as, equal, len(gaps), points))
                        told |= {run.run_id: run for run in group if run_label(run) in (label, baseline)}
    return pd.DataFrame(rows, columns=NEGATIVE_COLUMNS), list(told.values())


def _comparable(runs: Sequence[Run], same_epochs: Sequence[Run], baseline: str) -> dict[str, list[Run]]:
    """Return a baseline's runs with those comparable to it, by what they have in common: the epochs, or the MACs."""
    its = [run for run in same_epochs if run_label(run) == baseline]
    others = [run for run in runs if run.config.epochs != its[0].config.epochs] if its else []
    same_compute = at_budget(others, its[0].macs) if its else []
    return {"epochs": [*same_epochs], "compute": [*its, *same_compute]}
