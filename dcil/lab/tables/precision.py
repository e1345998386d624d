"""bf16 beside float32: runs that differ in nothing else, and how far apart their networks end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from dcil.lab.runs.benchmarks import rows_where
from dcil.lab.runs.frames import MISSING
from dcil.lab.runs.names import network_label
from dcil.lab.runs.paired import t_interval
from dcil.run_record import Run

COLUMNS = ["network", "pass", "seed", "bf16", "float32", "difference"]


def paired_runs(runs: Iterable[Run]) -> pd.DataFrame:
    """Return last-epoch top-1 in bf16 and float32, by pass and seed, of complete runs that differ only in precision."""
    rows = []
    for run in runs:
        if run.complete:
            same = repr(replace(run.config, precision="float32"))
            for name, end in run.by_pass.items():
                rows.append((same, run.config.model, name, run.config.seed, run.config.precision, end.last))
    key = ["same", "network", "pass", "seed", "precision"]
    table = pd.DataFrame(rows, columns=[*key, "last"]).drop_duplicates(key, keep="last")
    lasts = table.set_index(key)["last"].unstack("precision")
    pairs = lasts.reindex(columns=["bf16", "float32"]).dropna().rename_axis(columns=None).reset_index()
    pairs["difference"] = pairs["bf16"] - pairs["float32"]
    return pairs[COLUMNS].sort_values(COLUMNS[:3], ignore_index=True)


def pairs_by_network(pairs: pd.DataFrame, networks: Sequence[str]) -> list[tuple[str, str, pd.DataFrame]]:
    """Return each network, pass and its pairs (possibly none), in the order of `networks`."""
    found = []
    for network in networks:
        for name in ("sparse", "dense"):
            found.append((network, name, rows_where(pairs, **{"network": network, "pass": name})))
    return found


def differences_table(pairs: pd.DataFrame, networks: Sequence[str]) -> pd.DataFrame:
    """Return, by network and pass, the number of pairs, means (percent), and mean difference and interval (points)."""
    lines = []
    for network, name, mine in pairs_by_network(pairs, networks):
        line = {"network": network_label(network), "pass": name}
        columns = ("bf16, %", "float32, %", "bf16 minus float32, points", "95 % interval")
        values: Sequence[str] = (MISSING,) * len(columns)
        if len(mine):
            mean, low, high = t_interval(mine["difference"])
            around = f"{low:+z.2f} to {high:+z.2f}" if len(mine) > 1 else "one pair has none"
            values = f"{mine['bf16'].mean():.2f}", f"{mine['float32'].mean():.2f}", f"{mean:+z.2f}", around
        lines.append(line | dict(zip(columns, values, strict=True)) | {"pairs": len(mine)})
    return pd.DataFrame(lines)


def differences_in_words(pairs: pd.DataFrame, networks: Sequence[str]) -> str:
    """Return in words what the pairs show, and how large a difference remains possible."""
    sentences = []
    for network, name, mine in pairs_by_network(pairs, networks):
        mean, low, high = t_interval(mine["difference"])
        if not len(mine):
            text = "no seed has been trained in both precisions so far."
        elif len(mine) == 1:
            text = f"bf16 minus float32 is {mean:+z.2f} points in the one pair there is: too few."
        else:
            shown = "excludes zero: a difference" if low > 0 or high < 0 else "contains zero: no difference shown"
            text = (
                f"over {len(mine)} paired seeds, bf16 minus float32 is **{mean:+z.2f} points**. The 95 % interval, "
                f"{low:+z.2f} to {high:+z.2f}, {shown}. Differences of up to {max(abs(low), abs(high)):.2f} points "
                "remain possible."
            )
        sentences.append(f"- {network_label(network)}, {name} pass: {text}")
    return "\n".join(sentences)
