"""For the chapter on small devices: the results of `python -m benchmarks.device` as tables and sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from dcil.lab.runs.sources import Source, commit_words, counted, given, joined
from dcil.lab.tables.training_cost import short

COLUMNS = ["run_id", "model", "scope", "sparsity", "dataset", "side", "what", "variant", "value", "batch", "threads",
           "speedup", "speedup_q1", "speedup_q3", "device", "torch", "commit", "dirty", "date"]  # fmt: skip
FORMATS = {"state_dict": "dense, float32", "sparse": "sparse: bitmap and values", "shrunk": "shrunk, float32",
           "onnx": "ONNX, float32", "int8": "ONNX, int8"}  # fmt: skip


def load(folder: str | Path) -> pd.DataFrame:
    """Return the rows of every network measured, with a `network` in words; none if the folder is absent."""
    paths = sorted(Path(folder).glob("*.csv"))
    if not paths:
        return pd.DataFrame(columns=["network", *COLUMNS])
    rows = pd.concat([pd.read_csv(path, dtype={"commit": str}) for path in paths], ignore_index=True)
    rows = rows.assign(network=[name(r) for r in rows.itertuples()])
    alike = rows.groupby("network")["run_id"].transform("nunique") > 1
    return rows.assign(network=rows["network"].where(~alike, rows["network"] + ", " + rows["run_id"]))


def name(row: Any) -> str:
    """Return a network in words: what it is, and how many of its weights are pruned, singly or as whole filters."""
    how = " in filters" if row.scope == "filter" else ""
    return f"{row.model.replace('resnet', 'ResNet-')}, {100 * row.sparsity:.0f} % pruned{how}"


def figure(rows: pd.DataFrame, what: str, variant: str, **at: int) -> float:
    """Return one measured value, NaN where it is not there."""
    found = rows[(rows["what"] == what) & (rows["variant"] == variant)]
    for column, value in at.items():
        found = found[found[column] == value]
    return float(found["value"].iloc[0]) if len(found) else float("nan")


def storage(rows: pd.DataFrame) -> pd.DataFrame:
    """Return by network and format: KiB, how many times smaller than dense, the same with gzip, and how exact it is."""
    lines = []
    for network, mine in rows.groupby("network", sort=False):
        whole = figure(mine, "bytes", "state_dict")
        for to, words in FORMATS.items():
            plain, small = figure(mine, "bytes", to), figure(mine, "bytes", f"{to}, gzip")
            lines.append(
                {
                    "network": network,
                    "file": words,
                    "KiB": f"{plain / 2**10:,.0f}",
                    "times smaller": f"{whole / plain:.1f}",
                    "gzip, KiB": f"{small / 2**10:,.0f}",
                    "gzip, times smaller": f"{whole / small:.1f}",
                    "outputs apart by": f"{figure(mine, 'largest difference', to):.1g}",
                }
            )
    return pd.DataFrame(lines)


def work(rows: pd.DataFrame) -> pd.DataFrame:
    """Return by network and variant: parameters, MACs of an image, those of nonzeros, and peak activations."""
    lines = []
    for network, mine in rows.groupby("network", sort=False):
        for variant in ("dense", "masked", "shrunk"):
            lines.append(
                {
                    "network": network,
                    "variant": variant,
                    "parameters": f"{figure(mine, 'parameters', variant):,.0f}",
                    "MACs computed, 10⁶": f"{figure(mine, 'MACs', variant) / 1e6:.1f}",
                    "of nonzero weights, 10⁶": f"{figure(mine, 'MACs of nonzeros', variant) / 1e6:.1f}",
                    **{
                        f"peak activations, batch {b}, MiB": short(
                            figure(mine, "peak activations, MiB", variant, batch=b)
                        )
                        for b in (1, 64)
                    },
                }
            )
    return pd.DataFrame(lines)


def latencies(rows: pd.DataFrame, threads: int) -> pd.DataFrame:
    """Return by network and engine the milliseconds of a forward and how many times faster than dense PyTorch it is."""
    timed = rows[(rows["what"] == "latency, s") & (rows["threads"] == threads)]
    lines = []
    for (network, variant), mine in timed.groupby(["network", "variant"], sort=False):
        line = {"network": network, "engine and network": shown(variant)}
        for r in mine.itertuples():
            line[f"batch {r.batch:.0f}, ms"] = short(1e3 * r.value)
            line[f"batch {r.batch:.0f}, times as fast"] = (
                f"{short(r.speedup)} ({short(r.speedup_q1)} to {short(r.speedup_q3)})"
            )
        lines.append(line)
    return pd.DataFrame(lines)


def shown(variant: str) -> str:
    """Return an engine and variant in words."""
    return variant if "," in variant else f"PyTorch, {variant}"


def accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Return by network top-1 of the float32 network and of the int8 one, in percent."""
    lines = []
    for network, mine in rows.groupby("network", sort=False):
        full, small = (figure(mine, "top-1, %", variant) for variant in ("masked", "int8"))
        lines.append(
            {
                "network": network,
                "float32, %": f"{full:.2f}",
                "int8, %": f"{small:.2f}",
                "difference, points": f"{small - full:+.2f}",
            }
        )
    return pd.DataFrame(lines)


def verdict(rows: pd.DataFrame) -> str:
    """Return in words, by network, what sparsity buys in bytes, MACs and time at batch 1 on one thread."""
    if not len(rows):
        return "Not run."
    lines = []
    for network, mine in rows.groupby("network", sort=False):
        whole, sparse = (figure(mine, "bytes", to) for to in ("state_dict", "sparse"))
        macs = figure(mine, "MACs", "dense") / figure(mine, "MACs of nonzeros", "masked")
        timed = mine[(mine["what"] == "latency, s") & (mine["threads"] == 1) & (mine["batch"] == 1)]
        speed = dict(zip(timed["variant"], timed["speedup"], strict=True))
        csr = max(v for k, v in speed.items() if k.startswith("CSR"))
        engine = speed["onnxruntime, shrunk"] / speed["onnxruntime, dense"]
        lines.append(
            f"- **{network}**: {whole / sparse:.1f} × fewer bytes as a sparse file and {macs:.1f} × fewer "
            f"multiply-accumulates of nonzero weights. One image on one core, against the dense network in "
            f"the same engine: masked {short(speed['masked'])} × as fast, with sparse kernels {short(csr)} ×, "
            f"shrunk {short(speed['shrunk'])} × in PyTorch and {short(engine)} × in onnxruntime."
        )
    return "\n".join(lines)


def source(rows: pd.DataFrame) -> Source:
    """Return where the rows come from: networks, commit, machine, date."""
    if not len(rows):
        return given("no results: not run")
    commits = joined(commit_words(r.commit, r.dirty) for r in rows.itertuples())
    return Source(
        f"measured on {joined(rows['device'])}, {counted(rows['run_id'].nunique(), 'network')}",
        (),
        (
            ("networks", joined(rows["run_id"])),
            ("commit", commits),
            ("versions", joined(f"torch {t}" for t in rows["torch"])),
            ("date", joined(rows["date"])),
            ("measure", "python -m benchmarks.device RUN"),
        ),
    )
