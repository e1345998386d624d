"""What training costs: the results of `python -m benchmarks` and the records, as tables, and bf16 beside float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from dcil.config import LATER
from dcil.lab.runs.frames import MISSING, variant, with_shared
from dcil.lab.runs.paired import interval
from dcil.lab.runs.sources import Source, commit_words, counted, given, joined
from dcil.lab.tables.equal_compute import total_macs
from dcil.records import own_time_s

MACHINE = ["kind", "device", "threads", "malloc"]
COLUMNS = [*MACHINE, "name", "case", "baseline", "model", "batch_size", "median_s", "baseline_s", "ratio", "ratio_q1",
           "ratio_q3", "rounds", "mem_mib", "baseline_mib", "recipe_epochs", "how", "data", "others", "torch", "date",
           "commit", "dirty", "file"]  # fmt: skip
TEXT = dict.fromkeys(("malloc", "how", "torch", "commit"), str)  # what could be taken for a number, or is often empty
PAIR_COLUMNS = ["network", "pass", "seed", "bf16", "float32", "difference"]


def load(folder: str | Path) -> pd.DataFrame:
    """Return the newest rows of each benchmark on each machine, from a folder's CSV files; none if it is absent."""
    paths = sorted(Path(folder).glob("*.csv"))
    if not paths:
        return pd.DataFrame(columns=COLUMNS)
    rows = pd.concat([pd.read_csv(path, dtype=TEXT).assign(file=path.name) for path in paths])
    rows["malloc"] = rows["malloc"].fillna("")
    newest = rows.groupby([*MACHINE, "name"])["date"].transform("max") == rows["date"]
    return rows[newest].reset_index(drop=True)[COLUMNS]


def training(results: pd.DataFrame) -> pd.DataFrame:
    """Return the rows about training on small images, less those of the chapter on ImageNet."""
    return results[~results["name"].isin(("loading", "imagenet"))]


def read_targets(path: str | Path) -> dict[str, Any]:
    """Return what the book holds itself to, as `benchmarks/targets.yaml` says it."""
    return yaml.safe_load(Path(path).read_text())


def machines(results: pd.DataFrame, kind: str | None = None) -> list[tuple[str, pd.DataFrame]]:
    """Return each machine that was measured, named in words, with its rows; `kind` is "cpu" or "cuda"."""
    wanted = results if kind is None else results[results["kind"] == kind]
    return [
        (f"{device}, {threads} thread(s)" + (", malloc tuned" if malloc else ""), rows)
        for (_, device, threads, malloc), rows in wanted.groupby(MACHINE)
    ]


def select(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Return the rows that have these values."""
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows


def short(value: float) -> str:
    """Return a number with three significant digits, large ones whole."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def quartiles(row: Any) -> str:
    """Return a row's ratio with its quartiles, or alone where it was measured once."""
    text = short(row.ratio)
    return text if row.rounds == 1 else f"{text} ({short(row.ratio_q1)} to {short(row.ratio_q3)})"


def targets_table(results: pd.DataFrame, targets: dict[str, Any]) -> pd.DataFrame:
    """Return a line for each target and machine: measured, wanted, met; a kind of machine not measured is "not run"."""
    lines = []
    for kind in ("cpu", "cuda"):
        for machine, rows in machines(results, kind) or [("no GPU yet" if kind == "cuda" else "none yet", results[:0])]:
            for target in targets[kind]:
                place = {
                    "name": target["benchmark"],
                    "case": target["case"],
                    "baseline": target["baseline"],
                    "model": targets["model"],
                    "batch_size": targets["batch_size"],
                }
                found = select(rows, **place)
                value = float(found[target.get("column", "ratio")].iloc[0]) if len(found) else None
                low, high = target.get("at_least", 0), target.get("at_most", float("inf"))
                lines.append(
                    {
                        "machine": machine,
                        "target": target["target"],
                        "measured": MISSING if value is None else short(value),
                        "wanted": f"≤ {high}" if "at_most" in target else f"≥ {low}",
                        "met": "" if value is None else "yes" if low <= value <= high else "no",
                    }
                )
    return pd.DataFrame(lines)


def verdict(results: pd.DataFrame, targets: dict[str, Any]) -> str:
    """Return in words, by machine, what a DCIL step costs beside a dense one, and how many targets are met."""
    lines = []
    for machine, rows in machines(results):
        at = select(rows, case="dcil", baseline="dense", model=targets["model"], batch_size=targets["batch_size"])
        time, peak = select(at, name="step"), select(at, name="memory")
        words = [
            f"{quartiles(row)} × {what}"
            for part, what in ((time, "the time"), (peak, "the memory"))
            for row in part.itertuples()
        ]
        met = targets_table(rows, targets)["met"]
        lines.append(
            f"On **{machine}**, a DCIL step takes {' and '.join(words) or MISSING} of a dense one "
            f"({targets['model']}, batch {targets['batch_size']}). Targets met: {(met == 'yes').sum()} of the "
            f"{(met != '').sum()} that were measured."
        )
    if not len(select(results, kind="cuda")):
        lines.append("No GPU was measured yet: the targets for it are **not run**.")
    return "\n".join(f"- {line}" for line in lines)


def beside_dense(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the timed ratios to dense training of one machine, each with a `label`, steps before epochs."""
    timed = rows[(rows["baseline"] == "dense") & rows["median_s"].notna()]
    shown = {"step": "step", "scaling": "step", "epoch": "epoch"}
    labels = [f"{r.case.upper()} {shown[r.name]}, {r.model}, batch {r.batch_size}" for r in timed.itertuples()]
    order = timed.assign(label=labels, rank=timed["name"].map(list(shown).index))
    return order.sort_values(["rank", "model", "batch_size"], kind="stable")


def comparisons(results: pd.DataFrame) -> pd.DataFrame:
    """Return every timed ratio in words: machine, what, its ratio with quartiles, and the seconds on both sides."""
    lines = [
        {
            "machine": machine,
            "benchmark": r.name,
            "what": f"{r.case} / {r.baseline}",
            "network": r.model,
            "batch": r.batch_size,
            "ratio": quartiles(r),
            "seconds": f"{short(r.median_s)} / {short(r.baseline_s)}",
        }
        for machine, rows in machines(results)
        for r in rows[rows["median_s"].notna()].itertuples()
    ]
    return pd.DataFrame(lines)


def parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Return where the time of DCIL's training goes on one machine: shares of steps, masks and batches."""
    masks, batch = select(rows, name="refresh"), select(rows, name="loader", baseline="dcil step")
    if not len(masks) or not len(batch):
        return pd.DataFrame(columns=["part", "share, %"])
    share, made = masks["ratio"].iloc[0], batch["ratio"].iloc[0]  # of steps and masks; of a step
    whole = 1 + made * (1 - share)
    named = {
        "steps: both passes, backward, optimizer": (1 - share) / whole,
        "masks": share / whole,
        "batches: crop, flip, normalise": made * (1 - share) / whole,
    }
    return pd.DataFrame([{"part": name, "share, %": f"{100 * value:.2f}"} for name, value in named.items()])


def memory(results: pd.DataFrame) -> pd.DataFrame:
    """Return what a step allocates at its peak, DCIL's and STE's beside a dense one's."""
    lines = [
        {
            "machine": machine,
            "method": r.case,
            "network": r.model,
            "batch": r.batch_size,
            "MiB": f"{r.mem_mib:.0f}",
            "dense, MiB": f"{r.baseline_mib:.0f}",
            "ratio": quartiles(r),
        }
        for machine, rows in machines(results)
        for r in select(rows, name="memory").itertuples()
    ]
    return pd.DataFrame(lines)


def whole_runs(results: pd.DataFrame) -> pd.DataFrame:
    """Return what an epoch and the authors' whole schedule take by network, dense and DCIL."""
    lines = [
        {
            "machine": machine,
            "network": r.model,
            "dense epoch, s": f"{r.baseline_s:.1f}",
            "DCIL epoch, s": f"{r.median_s:.1f}",
            "ratio": quartiles(r),
            "epochs": f"{r.recipe_epochs:.0f}",
            "DCIL run, hours": f"{r.recipe_epochs * r.median_s / 3600:.1f}",
            "how": r.how,
        }
        for machine, rows in machines(results)
        for r in select(rows, name="epoch").itertuples()
    ]
    return pd.DataFrame(lines)


def source(results: pd.DataFrame) -> Source:
    """Return where the results come from: files, commits, machines, images and who else used the cores."""
    if not len(results):
        return given("no results: not run")
    rows = list(results.itertuples())
    named = joined((f"{r.device}, {counted(r.threads, 'thread')}" for r in rows), "; ")
    return Source(
        f"benchmark results, {counted(results['file'].nunique(), 'file')}",
        (),
        (
            ("files", joined(f"benchmarks/results/{r.file}" for r in rows)),
            ("commit", joined(commit_words(r.commit, r.dirty) for r in rows)),
            ("machine", named),
            ("versions", joined(f"torch {r.torch}" for r in rows)),
            ("date", joined(results["date"])),
            ("images", joined(results["data"])),
            ("load", f"other processes had up to {results['others'].max():.0%} of the cores"),
            ("measure", "make bench"),
        ),
    )


def _from_to(values: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys((f"{min(values):.0f}", f"{max(values):.0f}")))


def recorded(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return what the recorded runs cost, a line for each kind: how many, MACs of a run, minutes, and on what.

    Minutes are those of runs that had their device to themselves; others are only counted.
    """
    kinds: dict[tuple, list[dict[str, Any]]] = {}
    for r in records:
        c, e = r["config"], r["environment"]
        key = c["dataset"], c["model"], variant(c), c["precision"], c["epochs"], e["device"], e["threads"]
        kinds.setdefault(key, []).append(r)
    lines = []
    for (dataset, model, name, precision, epochs, device, threads), runs in sorted(kinds.items()):
        minutes = with_shared([own_time_s(r) / 60 for r in runs], _from_to)
        lines.append(
            {
                "run": f"{dataset}, {model}, {name}, {precision}",
                "epochs": epochs,
                "n": len(runs),
                "training, 10¹² MACs": f"{total_macs(runs[0]) / 1e12:.0f}",
                "minutes": minutes,
                "on": f"{device}, {threads} thread(s)",
            }
        )
    return pd.DataFrame(lines)


# --- bf16 beside float32


def precision_pairs(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return last-epoch top-1 of bf16 and float32 by pass and seed, of complete runs that differ in nothing else."""
    found: dict[tuple, dict[str, dict[str, Any]]] = {}
    for r in (r for r in records if r["status"] == "complete"):
        same = LATER | {k: v for k, v in r["config"].items() if k != "precision"}
        key = tuple(sorted((k, str(v)) for k, v in same.items()))
        found.setdefault(key, {})[r["config"]["precision"]] = r
    rows = []
    for runs in (runs for runs in found.values() if {"bf16", "float32"} <= runs.keys()):
        config = runs["bf16"]["config"]
        for name in runs["bf16"]["final"]["passes"]:
            low, full = (runs[p]["final"]["passes"][name]["last"]["top1"] for p in ("bf16", "float32"))
            rows.append((config["model"], name, config["seed"], low, full, low - full))
    return pd.DataFrame(rows, columns=PAIR_COLUMNS).sort_values(PAIR_COLUMNS[:3], ignore_index=True)


def groups(pairs: pd.DataFrame, networks: Sequence[str]) -> list[tuple[str, str, pd.DataFrame]]:
    """Return the pairs of each network and pass, in this order, empty where there are none."""
    return [
        (network, name, select(pairs, **{"network": network, "pass": name}))
        for network in networks
        for name in ("sparse", "dense")
    ]


def precision_table(pairs: pd.DataFrame, networks: Sequence[str]) -> pd.DataFrame:
    """Return by network and pass: pairs, means (percent), mean difference and its interval (points)."""
    lines = []
    for network, name, mine in groups(pairs, networks):
        line = {"network": network, "pass": name, "pairs": len(mine)}
        columns = ("bf16, %", "float32, %", "bf16 − float32, points", "95 % interval")
        values: Sequence[str] = (MISSING,) * len(columns)
        if len(mine):
            mean, low, high = interval(mine["difference"])
            around = f"{low:+.2f} to {high:+.2f}" if len(mine) > 1 else "one pair has none"
            values = f"{mine['bf16'].mean():.2f}", f"{mine['float32'].mean():.2f}", f"{mean:+.2f}", around
        lines.append(line | dict(zip(columns, values, strict=True)))
    return pd.DataFrame(lines)


def precision_sentence(pairs: pd.DataFrame, networks: Sequence[str]) -> str:
    """Return in words what the pairs show, and how large a difference they leave possible."""
    sentences = []
    for network, name, mine in groups(pairs, networks):
        mean, low, high = interval(mine["difference"])
        if not len(mine):
            text = "**not run yet**: no seed has a record in both precisions."
        elif len(mine) == 1:
            text = f"bf16 ends {mean:+.2f} points from float32 in the one pair there is: too few."
        else:
            shown = "excludes zero: a difference" if low > 0 or high < 0 else "contains zero: no difference shown"
            text = (
                f"over {len(mine)} paired seeds, bf16 ends **{mean:+.2f} points** from float32. The 95 % interval, "
                f"{low:+.2f} to {high:+.2f}, {shown}. Differences of up to {max(abs(low), abs(high)):.2f} points "
                "remain possible."
            )
        sentences.append(f"- {network}, {name} pass: {text}")
    return "\n".join(sentences)
