"""Runs as tables: one row per run, and mean ± sample standard deviation over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from dcil.lab.runs.names import label
from dcil.run_record import Run

MISSING = "not run"
RUN_COLUMNS = ["run", "status", "dataset", "model", "method", "variant", "sparsity", "seed", "epochs", "pass",
               "deployed", "last", "train", "best_at_target", "best_epoch", "measured_sparsity", "time_s", "mem_mib",
               "inference_macs", "train_macs", "nonzeros", "device", "threads"]  # fmt: skip
METHOD_COLUMNS = ["method", "pass", "n", "last epoch, %", "best at target, %", "sparsity, %", "minutes a run"]
CURVE_COLUMNS = ["run", "method", "variant", "seed", "pass", "epoch", "test", "train", "sparsity", "flips"]


def at_sparsity(runs: Iterable[Run], sparsity: float) -> list[Run]:
    """Return the runs of one final sparsity, and those that prune nothing, which are shown beside every sparsity."""
    return [run for run in runs if run.config.sparsity in (sparsity, 0.0)]


def runs_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each run and pass: its settings, final accuracies (top-1 in percent) and costs.

    `last` is last-epoch accuracy on the test set, `train` that on the augmented training images of the same epoch.
    The time of a run that shared its device with others (`cost.shared_by`) is NaN: it is not that run's own cost.
    """
    rows = []
    for run in runs:
        for name, end in run.by_pass.items():
            rows.append(
                {
                    "run": run.run_id,
                    "status": run["status"],
                    "dataset": run.config.dataset,
                    "model": run.config.model,
                    "method": run.config.method,
                    "variant": run.variant,
                    "sparsity": run.config.sparsity,
                    "seed": run.config.seed,
                    "epochs": run.config.epochs,
                    "pass": name,
                    "deployed": name == run.deployed,
                    "last": end.last,
                    "train": run.curve[-1].train[name],
                    "best_at_target": end.best_at_target,
                    "best_epoch": end.best_epoch,
                    "measured_sparsity": run.sparsity,
                    "time_s": run.cost.own_time_s,
                    "mem_mib": run.cost.mem_mib,
                    "inference_macs": run.cost.inference_macs,
                    "train_macs": run.cost.train_macs,
                    "nonzeros": sum(run.cost.nonzeros.values()),
                    "device": run.environment.device,
                    "threads": run.environment.threads,
                }
            )
    return pd.DataFrame(rows, columns=RUN_COLUMNS).astype({"deployed": bool})


def curves_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each run, pass and epoch: test and train top-1 (percent), sparsity, flips per mask refresh."""
    rows = []
    for run in runs:
        for epoch in run.curve:
            for name, top1 in epoch.test.items():
                rows.append(
                    {
                        "run": run.run_id,
                        "method": run.config.method,
                        "variant": run.variant,
                        "seed": run.config.seed,
                        "pass": name,
                        "epoch": epoch.epoch + 1,
                        "test": top1,
                        "train": epoch.train[name],
                        "sparsity": epoch.sparsity,
                        "flips": epoch.flips / max(epoch.refreshes, 1),
                    }
                )
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def spread(values: Sequence[float] | pd.Series, digits: int = 2) -> str:
    """Return "mean ± sample standard deviation", a single value by itself, or "not run" if there is none.

    >>> spread([80.0, 82.0]), spread([80.0], 1), spread([])
    ('81.00 ± 1.41', '80.0', 'not run')
    """
    values = pd.Series(values, dtype=float)
    if values.empty:
        return MISSING
    if len(values) == 1:
        return f"{values.iloc[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def times_in_words(times: Sequence[float], words: Callable[[list[float]], str]) -> str:
    """Return `words` of the times that are a run's own, and how many runs shared their device (their times are NaN)."""
    own = [time for time in times if not math.isnan(time)]
    said = [words(own)] if own else []
    if shared := len(times) - len(own):
        said.append(f"{shared} shared")
    return ", ".join(said)


def methods_table(runs: Iterable[Run], variants: Sequence[str]) -> pd.DataFrame:
    """Return one row for each variant and pass, in the order given; "not run" for variants without a complete run."""
    table = runs_table(run for run in runs if run.complete)
    rows = []
    for variant in variants:
        mine = table[table["variant"] == variant]
        if mine.empty:
            rows.append(dict.fromkeys(METHOD_COLUMNS, MISSING) | {"method": variant, "n": 0})
        for name, part in mine.groupby("pass", sort=False):
            rows.append(
                {
                    "method": variant,
                    "pass": name,
                    "n": len(part),
                    "last epoch, %": spread(part["last"]),
                    "best at target, %": spread(part["best_at_target"]),
                    "sparsity, %": spread(100 * part["measured_sparsity"]),
                    "minutes a run": times_in_words(list(part["time_s"] / 60), lambda own: spread(own, digits=1)),
                }
            )
    return pd.DataFrame(rows, columns=METHOD_COLUMNS)


def findings_in_words(table: pd.DataFrame) -> str:
    """Return a list in Markdown of what the runs of the variants dense, ste and dcil show, in numbers from records.

    Accuracies are compared at the n seeds that both variants have.
    """
    table = table[table["variant"].isin(["dense", "ste", "dcil"])]
    if not len(table):
        return "Nothing yet: not run."
    lines = []
    mean = table.groupby(["variant", "pass"])[["last", "train_macs", "inference_macs"]].mean()
    lasts = table.pivot_table("last", "seed", ["variant", "pass"])
    if ("dense", "dense") in mean.index:
        whole = mean.loc[("dense", "dense")]
        for method in ("dcil", "ste"):
            if (method, "sparse") in mean.index:
                row = mean.loc[(method, "sparse")]
                macs, paid = row["inference_macs"] / whole["inference_macs"], row["train_macs"] / whole["train_macs"]
                gaps = (lasts[method, "sparse"] - lasts["dense", "dense"]).dropna()
                minus = f"{gaps.mean():+z.2f} points, n = {len(gaps)}" if len(gaps) else "no seed in common"
                lines.append(
                    f"{label(method)} minus dense training: {minus}. The pruned network does {100 * macs:.1f} % of the "
                    f"dense network's multiply-accumulates, and its training took {paid:.2f} × those of the dense "
                    "training."
                )
    if ("dcil", "dense") in mean.index:
        gap = mean.loc[("dcil", "dense"), "last"] - mean.loc[("dcil", "sparse"), "last"]
        lines.append(f"DCIL's dense pass minus its sparse pass, two networks of the same runs: {gap:+z.2f} points.")
    picked = (table["best_at_target"] - table["last"]).mean()
    lines.append(f"Best epoch at target sparsity minus last epoch, on average over all runs: {picked:+z.2f} points.")
    return "\n".join(f"- {line}" for line in lines)
