"""The tables of the chapter on small devices, from made-up rows and from those of the book."""

import pandas as pd
import pytest

from dcil.lab.checkout import root
from dcil.lab.tables import small_devices

ABOUT = {"run_id": "run", "model": "resnet8", "scope": "filter", "sparsity": 0.5, "dataset": "digits", "side": 32,
         "device": "a CPU", "torch": "2.13.0", "commit": "abcdefghij", "dirty": True, "date": "2026-11-24"}  # fmt: skip
ENGINES = {"dense": 1.0, "masked": 1.0, "shrunk": 1.5, "CSR, PyTorch": 0.2, "CSR, SciPy": 0.25,
           "onnxruntime, dense": 2.0, "onnxruntime, masked": 2.0, "onnxruntime, shrunk": 5.0}  # fmt: skip


@pytest.fixture
def measured(tmp_path):
    """One network's results, read from a file."""
    rows = [
        {"what": "bytes", "variant": f"{to}{z}", "value": value / (2 if z else 1)}
        for z in ("", ", gzip")
        for to, value in (("state_dict", 4096), ("sparse", 1024), ("shrunk", 2048), ("onnx", 4096), ("int8", 1024))
    ]
    rows += [
        {"what": "largest difference", "variant": to, "value": value}
        for to, value in (("state_dict", 0.0), ("sparse", 0.0), ("shrunk", 2e-6), ("onnx", 3e-6), ("int8", 0.4))
    ]
    for variant, macs, kept in (("dense", 8e6, 8e6), ("masked", 8e6, 2e6), ("shrunk", 4e6, 2e6)):
        rows += [
            {"what": what, "variant": variant, "value": value}
            for what, value in (("MACs", macs), ("MACs of nonzeros", kept), ("parameters", 9))
        ]
        rows += [{"what": "peak activations, MiB", "variant": variant, "batch": b, "value": b} for b in (1, 64)]
    rows += [{"what": "top-1, %", "variant": v, "value": x} for v, x in (("masked", 90.0), ("int8", 89.5))]
    rows += [
        {
            "what": "latency, s",
            "variant": v,
            "batch": b,
            "threads": t,
            "value": 0.004 / x,
            "speedup": x,
            "speedup_q1": 0.9 * x,
            "speedup_q3": 1.1 * x,
        }
        for v, x in ENGINES.items()
        for b in (1, 64)
        for t in (1, 2)
    ]
    pd.DataFrame([ABOUT | row for row in rows]).to_csv(tmp_path / "run.csv", index=False)
    return small_devices.read_device_results(tmp_path)


def test_tables(measured):
    """Tables give factors against dense, in the units that the columns name."""
    assert set(measured["network"]) == {"ResNet-8, 50 % pruned in filters"}
    storage = small_devices.storage_table(measured).set_index("file")
    sparse = storage.loc["sparse: bitmap and values"]
    assert (sparse["KiB"], sparse["times smaller"], sparse["gzip, times smaller"]) == ("1", "4.0", "8.0")
    assert storage["outputs apart by"].tolist() == ["0", "0", "2e-06", "3e-06", "0.4"]
    work = small_devices.work_table(measured).set_index("variant")
    assert work.loc["shrunk", "MACs computed, 10⁶"] == "4.0" and work.loc["masked", "of nonzero weights, 10⁶"] == "2.0"
    timed = small_devices.latencies_table(measured, 1).set_index("engine and network")
    assert timed.loc["PyTorch, shrunk", "batch 1, times as fast"] == "1.50 (1.35 to 1.65)"
    assert timed.loc["CSR, SciPy", "batch 64, ms"] == "16.0"
    assert small_devices.accuracies_table(measured)["difference, points"].tolist() == ["-0.50"]


def test_verdict(measured, tmp_path):
    """Bytes, MACs and speeds are put in words, or in "Not run" without measurements."""
    said = small_devices.gains_in_words(measured)
    for words in (
        "4.0 × fewer bytes",
        "4.0 × fewer multiply-accumulates",
        "masked 1.0 × as fast",
        "kernels 0.25 ×",
        "shrunk 1.5 × in PyTorch and 2.5 × in onnxruntime",
    ):
        assert words in said
    assert dict(small_devices.device_source(measured).facts)["commit"] == "abcdefg and uncommitted changes"
    empty = small_devices.read_device_results(tmp_path / "none")
    assert (
        small_devices.gains_in_words(empty) == "Not run."
        and small_devices.device_source(empty).words == "no results: not run"
    )
    assert not len(small_devices.storage_table(empty)) and not len(small_devices.latencies_table(empty, 1))


def test_the_book_s_results():
    """The committed results have every format and engine for every network, from clean commits."""
    rows = small_devices.read_device_results(root() / "benchmarks" / "device")
    assert rows["network"].nunique() >= 3 and not rows["dirty"].any()
    for _, mine in rows.groupby("network"):
        assert set(small_devices.FORMATS) <= set(mine["variant"]) and "nan" not in small_devices.gains_in_words(mine)
        assert set(mine["threads"].dropna()) == {1, 2} and set(mine["batch"].dropna()) == {1, 64}


def test_alike_networks_are_kept_apart(measured, tmp_path):
    """Two runs of the same kind have different names, so that no table mixes them."""
    rows = pd.read_csv(tmp_path / "run.csv").assign(run_id="other")
    rows.to_csv(tmp_path / "other.csv", index=False)
    networks = set(small_devices.read_device_results(tmp_path)["network"])
    assert networks == {f"ResNet-8, 50 % pruned in filters, {run}" for run in ("run", "other")}
