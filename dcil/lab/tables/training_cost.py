"""What training costs: tables from the results of `python -m benchmarks` and from records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from dcil.lab.runs.benchmarks import by_machine, rows_where
from dcil.lab.runs.frames import MISSING, times_in_words
from dcil.lab.runs.names import data_set_label, label, network_label
from dcil.lab.runs.sources import Source, commit_in_words, given, machine_in_words
from dcil.lab.tables.targets import Target
from dcil.lab.wording import joined, number_of, three_digits, two_digits
from dcil.run_record import Run


def training_rows(results: pd.DataFrame) -> pd.DataFrame:
    """Return the rows on training with small images, without those of the chapter on ImageNet."""
    return results[~results["name"].isin(("loading", "imagenet"))]


def ratio_in_words(row: Any) -> str:
    """Return a row's ratio with its quartiles, or without them if it was measured only once."""
    text = three_digits(row.ratio)
    return text if row.rounds == 1 else f"{text} ({three_digits(row.ratio_q1)} to {three_digits(row.ratio_q3)})"


def targets_table(results: pd.DataFrame, targets: Sequence[Target]) -> pd.DataFrame:
    """Return one row for each target and machine: measured, wanted, met; "not run" for unmeasured kinds of machines."""
    rows = []
    for kind, absent in (("cpu", "none yet"), ("cuda", "no GPU yet")):
        for machine, measured in by_machine(results, kind) or [(absent, results[:0])]:
            for target in targets:
                if target.kind != kind:
                    continue
                found = rows_where(measured, **target.place)[target.column]
                value = float(found.iloc[0]) if len(found) else None
                shown = MISSING if value is None else three_digits(value)
                rows.append((target.target, machine, shown, target.bound(), target.met(value)))
    return pd.DataFrame(rows, columns=["target", "machine", "measured", "wanted", "met"])


def targets_in_words(table: pd.DataFrame) -> str:
    """Return in words how many of the measured targets are met; `table` is a `targets_table`."""
    met = table["met"]
    return f"Targets met: {(met == 'yes').sum()} of the {(met != '').sum()} that were measured."


def step_cost_in_words(results: pd.DataFrame, targets: Sequence[Target]) -> str:
    """Return in words, by machine, the cost of a DCIL step relative to a dense step of the network in the targets."""
    model, batch_size = targets[0].model, targets[0].batch_size
    lines = []
    for machine, rows in by_machine(results):
        at = rows_where(rows, case="dcil", baseline="dense", model=model, batch_size=batch_size)
        words = []
        for benchmark, what in (("step", "the time"), ("memory", "the memory")):
            words += [f"{ratio_in_words(row)} × {what}" for row in rows_where(at, name=benchmark).itertuples()]
        lines.append(
            f"On **{machine}**, a step of DCIL takes {' and '.join(words) or MISSING} of a dense step "
            f"({network_label(model)}, batch {batch_size})."
        )
    if not len(rows_where(results, kind="cuda")):
        lines.append("No step has been timed on a GPU so far.")
    return "\n".join(f"- {line}" for line in lines)


def dense_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one machine's timed ratios to dense training, each with a `label`, steps before epochs."""
    timed = rows[(rows["baseline"] == "dense") & rows["median_s"].notna()]
    shown = {"step": "step", "scaling": "step", "epoch": "epoch"}
    labels = [
        f"{label(r.case)} {shown[r.name]}, {network_label(r.model)}, batch {r.batch_size}" for r in timed.itertuples()
    ]
    order = timed.assign(label=labels, rank=timed["name"].map(list(shown).index))
    return order.sort_values(["rank", "model", "batch_size"], kind="stable")


def ratios_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return every timed ratio in words: what was compared, the ratio with quartiles, both times, and the machine."""
    lines = []
    for machine, rows in by_machine(results):
        for r in rows[rows["median_s"].notna()].itertuples():
            lines.append(
                {
                    "what": f"{label(r.case)} / {label(r.baseline)}",
                    "ratio": ratio_in_words(r),
                    "seconds": f"{three_digits(r.median_s)} / {three_digits(r.baseline_s)}",
                    "benchmark": r.name,
                    "network": network_label(r.model),
                    "batch": r.batch_size,
                    "machine": machine,
                }
            )
    return pd.DataFrame(lines)


def step_parts_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the shares of DCIL's training time on one machine that steps, masks and batches take."""
    masks, batch = rows_where(rows, name="refresh"), rows_where(rows, name="loader", baseline="dcil step")
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


def memory_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return the peak memory that a step allocates, DCIL's and STE's beside a dense step's."""
    lines = []
    for machine, rows in by_machine(results):
        for r in rows_where(rows, name="memory").itertuples():
            lines.append(
                {
                    "method": label(r.case),
                    "MiB": f"{r.mem_mib:.0f}",
                    "dense, MiB": f"{r.baseline_mib:.0f}",
                    "ratio": ratio_in_words(r),
                    "network": network_label(r.model),
                    "batch": r.batch_size,
                    "machine": machine,
                }
            )
    return pd.DataFrame(lines)


def schedule_hours_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return, by network, how long an epoch takes, dense and DCIL, and the authors' whole schedule with DCIL."""
    lines = []
    for machine, rows in by_machine(results):
        for r in rows_where(rows, name="epoch").itertuples():
            lines.append(
                {
                    "network": network_label(r.model),
                    "dense epoch, s": f"{r.baseline_s:.1f}",
                    "DCIL epoch, s": f"{r.median_s:.1f}",
                    "ratio": ratio_in_words(r),
                    "epochs": f"{r.recipe_epochs:.0f}",
                    "DCIL run, hours": f"{r.recipe_epochs * r.median_s / 3600:.1f}",
                    "how": r.how,
                    "machine": machine,
                }
            )
    return pd.DataFrame(lines)


def schedule_hours_in_words(results: pd.DataFrame) -> str:
    """Return in words, by machine, how long DCIL would take for the authors' whole schedule with each network."""
    lines = []
    for machine, rows in by_machine(results):
        epochs = rows_where(rows, name="epoch").sort_values("median_s")
        hours = [
            f"{two_digits(r.recipe_epochs * r.median_s / 3600)} hours with {network_label(r.model)}"
            for r in epochs.itertuples()
        ]
        if hours:
            lines.append(f"- The authors' whole schedule would take DCIL {', '.join(hours)} on **{machine}**.")
    return "\n".join(lines)


def benchmark_source(results: pd.DataFrame) -> Source:
    """Return the source of the results: files, commits, machines, images, and the load from other processes."""
    if not len(results):
        return given("no results: not run")
    rows = list(results.itertuples())
    named = joined((machine_in_words(r.device, r.threads) for r in rows), "; ")
    return Source(
        f"benchmark results, {number_of(results['file'].nunique(), 'file')}",
        (),
        (
            ("files", joined(f"benchmarks/results/{r.file}" for r in rows)),
            ("commit", joined(commit_in_words(r.commit, r.dirty) for r in rows)),
            ("machine", named),
            ("versions", joined(f"torch {r.torch}" for r in rows)),
            ("date", joined(results["date"])),
            ("images", joined(results["data"])),
            ("load", f"other processes had up to {max(0, results['others'].max()):.0%} of the cores"),
            ("measure", "make bench"),
        ),
    )


def _from_to(values: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys((f"{min(values):.0f}", f"{max(values):.0f}")))


def _kind(run: Run) -> tuple[str | int, ...]:
    """Return what the runs in one row of `recorded_costs_table` have in common."""
    c, e = run.config, run.environment
    return c.dataset, c.model, run.variant, c.precision, c.epochs, e.device, e.threads


def recorded_costs_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return the costs of recorded runs, one row for each kind: how many, MACs per run, minutes, and the machine.

    Minutes are of runs that had their device to themselves; the others are only counted.
    """
    rows = []
    for _, alike in groupby(sorted(runs, key=_kind), _kind):
        mine = list(alike)
        c, e = mine[0].config, mine[0].environment
        words = (label(mine[0].variant), network_label(c.model), data_set_label(c.dataset), c.precision)
        rows.append(
            {
                "run": ", ".join(words),
                "epochs": c.epochs,
                "n": len(mine),
                "training, 10¹² MACs": f"{mine[0].macs / 1e12:.0f}",
                "minutes": times_in_words([run.cost.own_time_s / 60 for run in mine], _from_to),
                "on": machine_in_words(e.device, e.threads),
            }
        )
    return pd.DataFrame(rows)
