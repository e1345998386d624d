"""For the chapter on small devices: the results of `python -m benchmarks.device` as tables and sentences."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from dcil.lab.runs.benchmarks import rows_where
from dcil.lab.runs.names import network_label
from dcil.lab.runs.sources import Source, commit_in_words, given
from dcil.lab.wording import joined, number_of, three_digits, times_from_to, two_digits

COLUMNS = ["run_id", "model", "scope", "sparsity", "dataset", "side", "what", "variant", "value", "batch", "threads",
           "speedup", "speedup_q1", "speedup_q3", "device", "torch", "commit", "dirty", "date"]  # fmt: skip
FORMATS = {"state_dict": "dense, float32", "sparse": "sparse: bitmap and values", "shrunk": "shrunk, float32",
           "onnx": "ONNX, float32", "int8": "ONNX, int8"}  # fmt: skip


def read_device_results(folder: str | Path) -> pd.DataFrame:
    """Return the rows of every measured network, with a column `network` in words; no rows if the folder is absent."""
    paths = sorted(Path(folder).glob("*.csv"))
    if not paths:
        return pd.DataFrame(columns=["network", *COLUMNS])
    rows = pd.concat([pd.read_csv(path, dtype={"commit": str}) for path in paths], ignore_index=True)
    rows = rows.assign(network=[network_in_words(r) for r in rows.itertuples()])
    alike = rows.groupby("network")["run_id"].transform("nunique") > 1
    return rows.assign(network=rows["network"].where(~alike, rows["network"] + ", " + rows["run_id"]))


def network_in_words(row: Any) -> str:
    """Return a network in words: its model, and the share of its weights that is pruned, singly or as whole filters."""
    how = " in filters" if row.scope == "filter" else ""
    return f"{network_label(row.model)}, {100 * row.sparsity:.0f} % pruned{how}"


def measured_value(rows: pd.DataFrame, what: str, variant: str, **at: int) -> float:
    """Return one measured value, NaN if there is none."""
    found = rows_where(rows, what=what, variant=variant, **at)["value"]
    return float(found.iloc[0]) if len(found) else math.nan


def storage_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, by network and format: KiB and times smaller than dense, plain and gzipped, and the outputs' error."""
    lines = []
    for network, mine in rows.groupby("network", sort=False):
        whole = measured_value(mine, "bytes", "state_dict")
        for to, words in FORMATS.items():
            plain, small = measured_value(mine, "bytes", to), measured_value(mine, "bytes", f"{to}, gzip")
            lines.append(
                {
                    "network": network,
                    "file": words,
                    "KiB": f"{plain / 2**10:,.0f}",
                    "times smaller": f"{whole / plain:.1f}",
                    "gzip, KiB": f"{small / 2**10:,.0f}",
                    "gzip, times smaller": f"{whole / small:.1f}",
                    "outputs apart by": f"{measured_value(mine, 'largest difference', to):.1g}",
                }
            )
    return pd.DataFrame(lines)


def work_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, by network and variant: parameters, MACs per image, those of nonzero weights, and peak activations."""
    lines = []
    for network, mine in rows.groupby("network", sort=False):
        for variant in ("dense", "masked", "shrunk"):
            line = {
                "network": network,
                "variant": variant,
                "parameters": f"{measured_value(mine, 'parameters', variant):,.0f}",
                "MACs computed, 10⁶": f"{measured_value(mine, 'MACs', variant) / 1e6:.1f}",
                "of nonzero weights, 10⁶": f"{measured_value(mine, 'MACs of nonzeros', variant) / 1e6:.1f}",
            }
            for batch in (1, 64):
                peak = measured_value(mine, "peak activations, MiB", variant, batch=batch)
                line[f"peak activations, batch {batch}, MiB"] = three_digits(peak)
            lines.append(line)
    return pd.DataFrame(lines)


def latencies_table(rows: pd.DataFrame, threads: int) -> pd.DataFrame:
    """Return, by network and engine, the milliseconds of a forward pass and its speed relative to dense PyTorch."""
    timed = rows_where(rows, what="latency, s", threads=threads)
    lines = []
    for (network, variant), mine in timed.groupby(["network", "variant"], sort=False):
        line = {"network": network, "engine and network": engine_in_words(variant)}
        for r in mine.itertuples():
            line[f"batch {r.batch:.0f}, ms"] = three_digits(1e3 * r.value)
            line[f"batch {r.batch:.0f}, times as fast"] = (
                f"{three_digits(r.speedup)} ({three_digits(r.speedup_q1)} to {three_digits(r.speedup_q3)})"
            )
        lines.append(line)
    return pd.DataFrame(lines)


def alone(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the latencies of one image on one thread."""
    return rows_where(rows, what="latency, s", threads=1, batch=1)


def engine_in_words(variant: str) -> str:
    """Return an engine and variant in words."""
    return variant if "," in variant else f"PyTorch, {variant}"


def accuracies_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, by network, the top-1 of the float32 and the int8 version, in percent."""
    lines = []
    for network, mine in rows.groupby("network", sort=False):
        full, small = (measured_value(mine, "top-1, %", variant) for variant in ("masked", "int8"))
        lines.append(
            {
                "network": network,
                "float32, %": f"{full:.2f}",
                "int8, %": f"{small:.2f}",
                "difference, points": f"{small - full:+z.2f}",
            }
        )
    return pd.DataFrame(lines)


def gains_in_words(rows: pd.DataFrame) -> str:
    """Return in words, by network, what sparsity buys in bytes, MACs and time at batch 1 on one thread."""
    if not len(rows):
        return "Not run."
    lines = []
    for network, mine in rows.groupby("network", sort=False):
        whole, sparse = (measured_value(mine, "bytes", to) for to in ("state_dict", "sparse"))
        macs = measured_value(mine, "MACs", "dense") / measured_value(mine, "MACs of nonzeros", "masked")
        timed = alone(mine)
        speed = dict(zip(timed["variant"], timed["speedup"], strict=True))
        csr = max(v for k, v in speed.items() if k.startswith("CSR"))
        engine = speed["onnxruntime, shrunk"] / speed["onnxruntime, dense"]
        masked, shrunk = two_digits(speed["masked"]), two_digits(speed["shrunk"])
        lines.append(
            f"- **{network}**: {whole / sparse:.1f} × fewer bytes as a sparse file and {macs:.1f} × fewer "
            f"multiply-accumulates of nonzero weights. One image on one core, against the dense network in "
            f"the same engine: masked {masked} × as fast, with sparse kernels {two_digits(csr)} ×, "
            f"shrunk {shrunk} × in PyTorch and {two_digits(engine)} × in onnxruntime."
        )
    return "\n".join(lines)


def answer_in_words(rows: pd.DataFrame) -> str:
    """Return in a few sentences what the measured networks gain in bytes and in time, each as a range."""
    if not len(rows):
        return "No network has been measured so far."
    smaller, faster, int8, engine = [], [], [], []
    for _, mine in rows.groupby("network", sort=False):
        smaller.append(measured_value(mine, "bytes", "state_dict") / measured_value(mine, "bytes", "sparse"))
        timed = alone(mine)
        speed = dict(zip(timed["variant"], timed["speedup"], strict=True))
        faster.append(speed["masked"])
        int8 += [v for k, v in speed.items() if "int8" in k]
        engine += [v for k, v in speed.items() if k == "onnxruntime, dense"]
    said = (
        f"**Smaller, yes: {times_from_to(smaller)}** as a sparse file. **Faster, no: on one core the network with "
        f"zeros runs {times_from_to(faster)} as fast as the dense one**, because an ordinary kernel multiplies by them."
    )
    if int8:
        said += (
            f" Quantised to eight bits and run by onnxruntime, it is {times_from_to(int8)} as fast as the dense one in "
            "PyTorch."
        )
    if int8 and engine:
        said += (
            " That gain is not shown to come from the zeros: onnxruntime runs the dense network "
            f"{times_from_to(engine)} as fast too, and no dense network was quantised."
        )
    return said


def device_source(rows: pd.DataFrame) -> Source:
    """Return where the rows come from: networks, commit, machine, date."""
    if not len(rows):
        return given("no results: not run")
    commits = joined(commit_in_words(r.commit, r.dirty) for r in rows.itertuples())
    return Source(
        f"measured on {joined(rows['device'])}, {number_of(rows['run_id'].nunique(), 'network')}",
        (),
        (
            ("networks", joined(rows["run_id"])),
            ("commit", commits),
            ("versions", joined(f"torch {t}" for t in rows["torch"])),
            ("date", joined(rows["date"])),
            ("measure", "python -m benchmarks.device RUN"),
        ),
    )
