"""The benchmarks measure, pair and write what they say; nothing here is held to a time."""

import csv

import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks import bench
from benchmarks.bench import compare, in_turns, peak_mib
from dcil.data import Dataset
from dcil.trainer import Trainer

FACTS = {"device": "A CPU (tm) 9", "threads": 2, "torch": "2.11.0+cpu", "date": "2026-01-02T03:04:05+00:00"}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """A turn is over after two calls."""
    monkeypatch.setattr(bench, "TURN_S", 0.0)


def result(**changes):
    """A row of results that meets the target of a DCIL step."""
    row = {"name": "step", "case": "dcil", "baseline": "dense", "model": "resnet32", "batch_size": 128, "ratio": 2.0}
    return row | changes


@pytest.fixture
def black():
    """Forty images of CIFAR's shape."""
    part = torch.zeros(40, 3, 32, 32, dtype=torch.uint8), torch.arange(40) % 10
    return Dataset("black", *part, *part, 10, (0.4,) * 3, (0.2,) * 3)


def test_command(black, tmp_path, monkeypatch, capsys):
    """One benchmark end to end: a share between 0 and 1 in a whole CSV, then the targets, which wait for ResNet-32."""
    monkeypatch.setattr(benchmarks, "images", lambda _: black)
    words = "--only refresh --rounds 2 --threads 1 --model resnet8 --batch-size 8 --device cpu --out"
    assert benchmarks.main([*words.split(), str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    (row,) = csv.DictReader(path.open())
    assert tuple(row) == benchmarks.COLUMNS and not any(v is None for v in row.values())
    assert 0 < float(row["ratio_q1"]) <= float(row["ratio"]) <= float(row["ratio_q3"]) < 1
    assert (row["name"], row["rounds"], row["threads"], row["data"]) == ("refresh", "2", "1", "black")
    shown = capsys.readouterr().out
    assert "needs a GPU" in shown and "yes" not in shown and path.name in shown


def test_ratios_are_paired_by_round():
    """A machine twice as slow in one round changes the seconds, not the ratio."""
    found = compare([2.0, 4.0, 2.2], [1.0, 2.0, 1.0])
    assert (found["ratio"], found["rounds"]) == (2.0, 3)
    assert (found["median_s"], found["baseline_s"]) == (2.2, 1.0)
    assert (found["ratio_q1"], found["ratio_q3"]) == (2.0, pytest.approx(2.1))


def test_turns_alternate():
    """A B, A B, and as many figures as rounds."""
    order = []
    times = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, 1, "")
    assert "".join(key for i, key in enumerate(order) if not i or key != order[i - 1]) == "abab"
    assert {key: len(value) for key, value in times.items()} == {"a": 2, "b": 2}


def test_a_step_with_two_passes_takes_twice_the_memory(tiny_config, black):
    """Activations of both passes are alive at once; gradients and masked weights are small beside them."""
    dense, dcil = (peak_mib(Trainer(tiny_config(method=m, batch_size=20), black)) for m in ("dense", "dcil"))
    # The least that backward needs: the sixteen-channel maps of the first stage, float32.
    assert dense > 4 * 20 * 16 * 32 * 32 * 4 / 2**20
    assert 1.8 < dcil / dense < 2.2


def test_results_are_never_overwritten(tmp_path):
    """A second run of a day gets a name of its own."""
    path = benchmarks.new_file(tmp_path, FACTS)
    assert path.name == "a-cpu-tm-9-2t-torch2.11.0-2026-01-02.csv"
    benchmarks.write([FACTS], path)
    assert benchmarks.new_file(tmp_path, FACTS).name == path.stem + "-2.csv"


@pytest.mark.parametrize("row, kind, met", [
    (result(), "cpu", "yes"),
    (result(ratio=2.06), "cpu", "no"),
    (result(model="resnet8"), "cpu", ""),
    (result(), "cuda", ""),
])  # fmt: skip
def test_targets(row, kind, met):
    """Met, missed, or not run: also where the network or the device is another."""
    line = benchmarks.verdicts([row], kind)[0]
    assert line[0].startswith("cpu: DCIL step") and line[3] == met
    assert (line[1] == "not run") == (met == "")


@pytest.mark.parametrize("words, message", [
    (["--only", "refesh"], "did you mean 'refresh'"),
    (["--ronds", "3"], "did you mean '--rounds'"),
    (["--rounds", "1"], "at least 2"),
    pytest.param(["--device", "cuda"], "no GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU")),
])  # fmt: skip
def test_what_people_can_mend(words, message, capsys):
    """The nearest name, or the least value; exit code 2 and nothing measured."""
    assert benchmarks.main(words) == 2
    assert message in capsys.readouterr().err
