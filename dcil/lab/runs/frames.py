"""Run records as tables: one row a run, and mean ± sample spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from dcil import methods
from dcil.config import FOLDERS, LATER, RunConfig
from dcil.lab.runs.names import label
from dcil.records import own_time_s

MISSING = "not run"
RUN_COLUMNS = ["run", "tier", "status", "dataset", "model", "method", "variant", "sparsity", "seed", "epochs", "pass",
               "deployed", "last", "train",
               "mean_last_ten", "best_at_target", "best_epoch", "measured_sparsity", "time_s", "mem_mib",
               "inference_macs", "train_macs", "nonzeros", "device", "threads"]  # fmt: skip
CURVE_COLUMNS = ["run", "method", "variant", "seed", "pass", "epoch", "test", "train", "sparsity", "flips"]

# How a run is carried out, or which run it is: no part of what the method is.
CARRIED_OUT = ("seed", "device", "precision", "channels_last", "sync_batchnorm")
#: How those runs of a tier are carried out that are compared with each other, one for each seed. Runs of another device
#: or precision stand on the pages of all runs and of costs, until enough seeds there show that they end alike.
#: Meanwhile `python -m dcil claims --precision float32` judges float32 runs among themselves.
COMPARED: dict[str, dict[str, Any]] = {
    "smoke": {},
    "quick": {"device": "cpu", "precision": "bf16", "channels_last": True, "sync_batchnorm": False},
    "paper": {"device": "cuda", "precision": "bf16", "channels_last": True, "sync_batchnorm": False},
}


def variant(config: dict[str, Any]) -> str:
    """Return what distinguishes a run's way of training: its method, and each setting that is not the recipe's.

    For example "dcil" or "dcil, dense_every 4".
    """
    config = LATER | config
    own = ("batch_size", "image_size") if config["dataset"] in FOLDERS else ()  # of the data, and lr follows
    named = {
        k: config[k] for k in ("dataset", "model", "method", "sparsity", "epochs", *own, *CARRIED_OUT) if k in config
    }
    usual = RunConfig.from_dict(named).resolve().as_dict()
    if config["dataset"] == "digits":  # the smoke preset's own batch size
        usual["batch_size"] = config["batch_size"]
    changed = [
        f"{k} {config[k]:g}" if isinstance(config[k], float) else f"{k} {config[k]}"
        for k in usual
        if k in config and config[k] != usual[k]
    ]
    return ", ".join([config["method"], *changed])


def runs_table(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each run and pass: what it was, where it ended (top-1 in percent), what it cost.

    `last` is of the test set, `train` of the training images of the same epoch, augmented.
    The time of a run that shared its device with others (`cost.shared_by`) is NaN: it is no cost of that run.
    """
    rows = []
    for r in records:
        for name, final in r["final"]["passes"].items():
            best = final["best_at_target"] or {"top1": float("nan"), "epoch": None}
            rows.append(
                {
                    "run": r["run_id"],
                    "tier": r["tier"],
                    "status": r["status"],
                    **{k: r["config"][k] for k in ("dataset", "model", "method", "sparsity", "seed", "epochs")},
                    "variant": variant(r["config"]),
                    "pass": name,
                    "deployed": name == methods.get(r["config"]["method"]).passes[0],
                    "last": final["last"]["top1"],
                    "train": r["curve"][-1]["train"][name]["top1"],
                    "mean_last_ten": final["mean_last_ten"]["top1"],
                    "best_at_target": best["top1"],
                    "best_epoch": best["epoch"],
                    "measured_sparsity": r["curve"][-1]["sparsity"],
                    "time_s": own_time_s(r),
                    "mem_mib": r["cost"]["mem_mib"],
                    "inference_macs": r["cost"]["inference_macs"],
                    "train_macs": r["cost"]["train_macs"],
                    "nonzeros": sum(r["cost"]["nonzeros"].values()),
                    "device": r["environment"]["device"],
                    "threads": r["environment"]["threads"],
                }
            )
    return pd.DataFrame(rows, columns=RUN_COLUMNS).astype({"deployed": bool})


def spread(values: pd.Series, digits: int = 2) -> str:
    """Return "mean ± sample standard deviation", or the one value where there is only one."""
    if len(values) == 1:
        return f"{values.iloc[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def with_shared(times: Sequence[float], words: Callable[[list[float]], str]) -> str:
    """Return in words the times that are a run's own, and how many runs shared their device: theirs are NaN."""
    own = [time for time in times if not math.isnan(time)]
    said = [words(own)] if own else []
    if shared := len(times) - len(own):
        said.append(f"{shared} shared")
    return ", ".join(said)


def at_sparsity(records: list[dict[str, Any]], sparsity: float) -> list[dict[str, Any]]:
    """Return the records of one final sparsity, and those that prune nothing: they stand beside any."""
    return [r for r in records if r["config"]["sparsity"] in (sparsity, 0.0)]


def by_method(records: list[dict[str, Any]], methods: list[str]) -> pd.DataFrame:
    """Return one row for each variant and pass, in the order given; one without a complete run says "not run"."""
    table = runs_table([r for r in records if r["status"] == "complete"])
    rows = []
    for method in methods:
        mine = table[table["variant"] == method] if len(table) else table
        for name, part in mine.groupby("pass", sort=False) if len(mine) else [(MISSING, None)]:
            row = {"method": method, "pass": name, "n": 0 if part is None else len(part)}
            columns = ("last epoch, %", "best at target, %", "sparsity, %", "minutes a run")
            if part is None:
                rows.append(row | dict.fromkeys(columns, MISSING))
                continue
            values = (
                spread(part["last"]),
                spread(part["best_at_target"]),
                spread(100 * part["measured_sparsity"]),
                with_shared(list(part["time_s"] / 60), lambda own: spread(pd.Series(own), 1)),
            )
            rows.append(row | dict(zip(columns, values, strict=True)))
    return pd.DataFrame(rows)


def curves(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each run, pass and epoch: test and train top-1 (percent), sparsity, flips and flip rate."""
    rows = []
    for r in records:
        for row in r["curve"]:
            for name, top in row["test"].items():
                rows.append(
                    {
                        "run": r["run_id"],
                        "method": r["config"]["method"],
                        "variant": variant(r["config"]),
                        "seed": r["config"]["seed"],
                        "pass": name,
                        "epoch": row["epoch"] + 1,
                        "test": top["top1"],
                        "train": row["train"][name]["top1"],
                        "sparsity": row["sparsity"],
                        "flips": row["flips"] / max(row["refreshes"], 1),
                    }
                )
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def findings(table: pd.DataFrame) -> str:
    """Return as a list what the runs of dense, ste and dcil show, in numbers of the records only."""
    if not len(table):
        return "Nothing yet: not run."
    lines = []
    mean = table.groupby(["method", "pass"])[["last", "best_at_target", "train_macs", "inference_macs"]].mean()
    if ("dense", "dense") in mean.index:
        whole = mean.loc[("dense", "dense")]
        for method in ("dcil", "ste"):
            if (method, "sparse") in mean.index:
                row = mean.loc[(method, "sparse")]
                macs, paid = row["inference_macs"] / whole["inference_macs"], row["train_macs"] / whole["train_macs"]
                lines.append(
                    f"{label(method)} minus dense training: {row['last'] - whole['last']:+.2f} points. The "
                    f"pruned network does {100 * macs:.1f} % of the dense network's multiply-accumulates, and its "
                    f"training took {paid:.2f} × those of the dense training."
                )
    if ("dcil", "dense") in mean.index:
        gap = mean.loc[("dcil", "dense"), "last"] - mean.loc[("dcil", "sparse"), "last"]
        lines.append(f"DCIL's dense pass minus its sparse pass, two networks of the same runs: {gap:+.2f} points.")
    picked = (table["best_at_target"] - table["last"]).mean()
    lines.append(f"Best epoch at target sparsity minus last epoch, on average over all runs: {picked:+.2f} points.")
    return "\n".join(f"- {line}" for line in lines)
