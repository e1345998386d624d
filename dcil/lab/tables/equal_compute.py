"""What a run's training computes, in multiply-accumulates, so that methods can be compared at equal compute.

Counted as the machine computes: dense kernels, backward at twice a forward, every pass that ran. A mask saves nothing
here, because no kernel of this trainer skips a zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from dcil import methods
from dcil.cost import passes_a_step
from dcil.lab.runs.frames import MISSING, at_sparsity, spread, variant
from dcil.lab.runs.paired import interval, one_a_seed, shows, signed

ENDS = ["variant", "epochs", "cost", "n", "mean", "low", "high", "lasts"]
COLUMNS = ["run", "variant", "seed", "epochs", "epoch", "macs", "test"]


def epoch_macs(record: dict[str, Any]) -> float:
    """Return the MACs of an epoch of training. `cost.train_macs` is an image's with every pass."""
    passes = len(methods.get(record["config"]["method"]).rules)
    return passes_a_step(record["config"]) / passes * record["cost"]["train_macs"] * record["data"]["train_size"]


def total_macs(record: dict[str, Any]) -> float:
    """Return the MACs of a whole run of training."""
    return epoch_macs(record) * record["config"]["epochs"]


def named(name: str, epochs: int) -> str:
    """Return the label of runs of a variant over so many epochs."""
    return f"{name}, {epochs} epochs"


def label(record: dict[str, Any]) -> str:
    """Return a run's label: its variant and its epochs."""
    return named(variant(record["config"]), record["config"]["epochs"])


def curves(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each run and epoch: MACs spent so far, and test top-1 (%) of the deployed pass."""
    rows = [
        {
            "run": r["run_id"],
            "variant": variant(r["config"]),
            "seed": r["config"]["seed"],
            "epochs": r["config"]["epochs"],
            "epoch": row["epoch"] + 1,
            "macs": (row["epoch"] + 1) * epoch_macs(r),
            "test": next(iter(row["test"].values()))["top1"],
        }
        for r in records
        for row in r["curve"]
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def ends(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each variant and length of schedule, cheapest first: what training cost and where it ended.

    `cost` is in multiply-accumulates of the longest dense run among the records, NaN without one. `mean`, `low` and
    `high` are last-epoch top-1 (%) of the deployed pass over `n` seeds and its 95 % interval, `lasts` the seeds' own.
    """
    complete = [r for r in records if r["status"] == "complete"]
    dense = [total_macs(r) for r in complete if variant(r["config"]) == "dense"]
    unit = max(dense, default=math.nan)
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for r in complete:
        groups.setdefault((variant(r["config"]), r["config"]["epochs"]), []).append(r)
    rows = []
    for (name, epochs), mine in groups.items():
        its = list(lasts(mine)[named(name, epochs)].values())
        mean, low, high = interval(its)
        rows.append(
            {
                "variant": name,
                "epochs": epochs,
                "cost": total_macs(mine[0]) / unit,
                "n": len(its),
                "mean": mean,
                "low": low,
                "high": high,
                "lasts": its,
            }
        )
    return pd.DataFrame(rows, columns=ENDS).sort_values(["cost", "mean"], ignore_index=True)


def within(records: Sequence[dict[str, Any]], budget: float) -> list[dict[str, Any]]:
    """Return the records of runs whose training took `budget` MACs within 2 %."""
    return [r for r in records if abs(total_macs(r) / budget - 1) < 0.02]


def lasts(records: Sequence[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Return last-epoch top-1 (%) of the deployed pass of complete runs, by label and seed.

    Raises `DcilError` when a seed occurs twice: the records must be of one data set, network and precision.
    """
    rows = [
        {
            "label": label(r),
            "run": r["run_id"],
            "seed": r["config"]["seed"],
            "last": next(iter(r["final"]["passes"].values()))["last"]["top1"],
        }
        for r in records
        if r["status"] == "complete"
    ]
    table = pd.DataFrame(rows, columns=["label", "run", "seed", "last"])
    return {name: one_a_seed(mine, name, "last").to_dict() for name, mine in table.groupby("label", sort=False)}


def gaps(ends: dict[str, dict[int, float]], name: str, baseline: str) -> list[float]:
    """Return a run's ends less the baseline's at the seeds that both have."""
    mine, theirs = ends.get(name, {}), ends.get(baseline, {})
    return [mine[s] - theirs[s] for s in sorted(mine.keys() & theirs.keys())]


def at_budget(
    records: Sequence[dict[str, Any]], budget: float, wanted: Sequence[str], baseline: str, margin: float
) -> pd.DataFrame:
    """Return one row for each wanted label (see `label`): runs whose training took `budget` MACs within 2 %.

    Last-epoch top-1 of the deployed pass, and the difference to `baseline` at equal seeds with its 95 % interval.
    """
    ends, rows = lasts(within(records, budget)), []
    for name in wanted:
        mine, found = ends.get(name, {}), gaps(ends, name, baseline)
        rows.append(
            {
                "run": name,
                "n": len(mine),
                "last epoch, %": spread(pd.Series(list(mine.values()))) if mine else MISSING,
                f"less {baseline}, points": "" if name == baseline else signed(*interval(found)),
                "what it shows": "" if name == baseline else shows(found, margin),
            }
        )
    return pd.DataFrame(rows)


def standing(
    records: Sequence[dict[str, Any]], budget: float, wanted: Sequence[str], baseline: str, margin: float
) -> str:
    """Return in words what `at_budget` shows: the wanted runs beside `baseline`, those farthest ahead first."""
    ends = lasts(within(records, budget))
    found = {name: gaps(ends, name, baseline) for name in wanted if name != baseline}
    groups: dict[str, list[str]] = {}
    for name, points in sorted(found.items(), key=lambda item: -fmean(item[1] or [-math.inf])):
        shown = f" {signed(*interval(points))}, n = {len(points)}" if points else ""
        groups.setdefault(shows(points, margin), []).append(f"*{name}*{shown}")
    parts = [f"{words.capitalize()}: {'; '.join(names)}." for words, names in groups.items()]
    return " ".join([f"Beside *{baseline}*, in points.", *parts])


def halved(records: Sequence[dict[str, Any]], name: str, epochs: int) -> str:
    """Return in words what half the epochs cost a variant by itself, at equal seeds; "" where that has not run."""
    ends = lasts([r for r in records if r["config"]["epochs"] in (epochs, epochs // 2)])
    lost = gaps(ends, named(name, epochs // 2), named(name, epochs))
    if not lost:
        return ""
    return (
        f"Training for {epochs // 2} epochs in place of {epochs} moves {name} by {signed(*interval(lost))} points, "
        f"whatever stands beside it, n = {len(lost)}."
    )


def behind(
    records: Sequence[dict[str, Any]], baselines: Sequence[str], epochs: int
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Return a row for each label that ends behind a baseline in the mean over common seeds, and those runs' records.

    A baseline is a variant trained for `epochs`; beside it stand runs of as many epochs, and those of as many MACs.
    """
    rows: list[dict[str, Any]] = []
    told: dict[str, dict[str, Any]] = {}
    for sparsity in sorted({r["config"]["sparsity"] for r in records} - {0.0}):
        mine = at_sparsity(list(records), sparsity)
        same = [r for r in mine if r["config"]["epochs"] == epochs]
        for baseline in (named(name, epochs) for name in baselines):
            its = [r for r in same if label(r) == baseline]
            other = within([r for r in mine if r["config"]["epochs"] != epochs], total_macs(its[0])) if its else []
            for compared, group in (("epochs", same), ("compute", [*its, *other])):
                ends = lasts(group)
                for name in sorted(ends):
                    found = gaps(ends, name, baseline)
                    if found and sum(found) < 0:
                        rows.append(
                            {
                                "sparsity, %": f"{100 * sparsity:g}",
                                "run": name,
                                "behind": baseline,
                                "at equal": compared,
                                "n": len(found),
                                "points": signed(*interval(found)),
                            }
                        )
                        told |= {r["run_id"]: r for r in group if label(r) in (name, baseline)}
    return pd.DataFrame(rows), list(told.values())
