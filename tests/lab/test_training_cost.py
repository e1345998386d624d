"""Costs follow from result files and records, and say so where there are none."""

import csv
import math

import pytest

from dcil.lab import checkout
from dcil.lab.runs import benchmarks
from dcil.lab.tables import training_cost
from dcil.lab.tables.targets import Target, read_targets
from tests.lab.fakes import changed, fake_run

FACTS = {"kind": "cpu", "device": "a CPU", "threads": 2, "malloc": "", "rounds": 9, "data": "cifar10", "others": 0.01,
         "torch": "2.13.0", "date": "2026-01-02", "commit": "0123456789", "dirty": False}  # fmt: skip
NUMBERS = {"median_s": 0.4, "baseline_s": 0.2, "ratio": 2.0, "ratio_q1": 1.9, "ratio_q3": 2.1}
STEP = {"target": "a step", "benchmark": "step", "case": "dcil", "baseline": "dense", "model": "resnet32",
        "batch_size": 128}  # fmt: skip
TARGETS = [Target(kind="cpu", at_most=2.05, **STEP), Target(kind="cuda", at_most=1.5, **STEP)]


def row(name, case, baseline, **changes):
    """Return a row of results."""
    where = {"name": name, "case": case, "baseline": baseline, "model": "resnet32", "batch_size": 128}
    return FACTS | NUMBERS | where | changes


ROWS = [
    row("step", "dcil", "dense"),
    row("refresh", "masks", "steps and masks", ratio=0.01),
    row("loader", "batch", "dcil step", ratio=0.02),
    row("memory", "dcil", "dense", median_s="", baseline_s="", mem_mib=310.0, baseline_mib=155.0, rounds=1),
    row("epoch", "dcil", "dense", median_s=36.0, recipe_epochs=300, how="estimated from steps"),
]


@pytest.fixture
def folder(tmp_path):
    """Return a maker of a folder of results, one file for each list of rows."""

    def make(*files):
        for i, rows in enumerate(files):
            with (tmp_path / f"{i}.csv").open("w", newline="") as file:
                lines = csv.DictWriter(file, benchmarks.COLUMNS[:-1])
                lines.writeheader()
                lines.writerows(rows)
        return tmp_path

    return make


def test_the_newest_rows_count(folder):
    """A later run of one benchmark on one machine replaces its rows; other benchmarks and machines stay."""
    later = [row("step", "dcil", "dense", ratio=2.2, date="2026-02-01"), row("step", "dcil", "dense", threads=1)]
    results = benchmarks.read_benchmarks(folder(later, ROWS))
    assert sorted(benchmarks.rows_where(results, name="step")["ratio"]) == [2.0, 2.2] and len(results) == len(ROWS) + 1
    assert [name for name, _ in benchmarks.by_machine(results)] == ["a CPU, 1 thread", "a CPU, 2 threads"]


def test_targets_met_missed_and_not_run(folder):
    """A target on a GPU or a network that was not measured is "not run"."""
    table = training_cost.targets_table(benchmarks.read_benchmarks(folder(ROWS)), TARGETS)
    assert table[["measured", "wanted", "met"]].values.tolist() == [["2.00", "≤ 2.05", "yes"], ["not run", "≤ 1.5", ""]]
    slow = benchmarks.read_benchmarks(folder([row("step", "dcil", "dense", ratio=2.06, ratio_q1=2.0)]))
    assert training_cost.targets_table(slow, TARGETS)["met"].tolist() == ["no", ""]
    other = benchmarks.read_benchmarks(folder([row("step", "dcil", "dense", model="resnet8")]))
    assert training_cost.targets_table(other, TARGETS)["measured"].tolist() == ["not run", "not run"]


def test_the_books_targets_are_readable():
    """Every target of the book names a row and exactly one bound."""
    targets = read_targets(checkout.root() / "benchmarks" / "targets.yaml")
    assert len(targets) >= 6 and {target.kind for target in targets} == {"cpu", "cuda"}
    assert all(math.isfinite(target.at_most) != math.isfinite(target.at_least) for target in targets)
    assert {target.bound()[0] for target in targets} == {"≤", "≥"}


def test_tables(folder):
    """Shares of time sum to 100 %; memory and whole runs are what the rows say."""
    results = benchmarks.read_benchmarks(folder(ROWS))
    shares = training_cost.step_parts_table(results)["share, %"].astype(float)
    assert shares.sum() == pytest.approx(100, abs=0.02) and shares.tolist()[1:] == [0.98, 1.94]
    assert training_cost.memory_table(results)[["MiB", "dense, MiB", "ratio"]].values.tolist() == [
        ["310", "155", "2.00"]
    ]
    assert training_cost.schedule_hours_table(results)["DCIL run, hours"].tolist() == ["3.0"]
    timed = training_cost.ratios_table(results)
    assert timed["ratio"][0] == "2.00 (1.90 to 2.10)"
    assert timed["seconds"].tolist() == ["0.400 / 0.200"] * 3 + ["36.0 / 0.200"]
    facts = dict(training_cost.benchmark_source(results).facts)
    assert facts["commit"] == "0123456" and "1% of the cores" in facts["load"]


def test_verdict_and_figure(folder):
    """Time and memory in one sentence, targets counted, the GPU said to be missing; steps are drawn before epochs."""
    results = benchmarks.read_benchmarks(folder(ROWS[::-1]))
    text = training_cost.step_cost_in_words(results, TARGETS)
    assert "2.00 (1.90 to 2.10) × the time and 2.00 × the memory" in text
    assert "No step has been timed on a GPU" in text
    assert "1 of the 1" in training_cost.targets_in_words(training_cost.targets_table(results, TARGETS))
    assert "3.0 hours with ResNet-32 on" in training_cost.schedule_hours_in_words(results)
    assert training_cost.schedule_hours_in_words(results[:0]) == ""
    assert training_cost.dense_ratios(results)["label"].tolist() == [
        "DCIL step, ResNet-32, batch 128",
        "DCIL epoch, ResNet-32, batch 128",
    ]


def test_without_results(tmp_path):
    """Nothing is made up where nothing was measured."""
    results = benchmarks.read_benchmarks(tmp_path / "absent")
    for table in (
        training_cost.ratios_table,
        training_cost.step_parts_table,
        training_cost.memory_table,
        training_cost.schedule_hours_table,
        training_cost.dense_ratios,
    ):
        assert not len(table(results))
    assert set(training_cost.targets_table(results, TARGETS)["measured"]) == {"not run"}
    assert "not run" in training_cost.benchmark_source(
        results
    ).words and "on a GPU" in training_cost.step_cost_in_words(results, TARGETS)


def run(precision, seed, sparse, dense):
    """Return a run of DCIL of four epochs that took ten minutes, and one more for each seed."""
    made = fake_run("dcil", seed, sparse, passes=("sparse", "dense"), precision=precision, epochs=4)
    made["final"]["passes"]["dense"]["last"]["top1"] = dense
    made = changed(made, "cost", time_s=600 + 60 * seed, train_macs=2_000_000)
    return changed(made, "data", train_size=500_000)


PAIRED = [run("bf16", 0, 80.0, 82.0), run("float32", 0, 81.0, 81.0), run("bf16", 1, 83.0, 80.0),
          run("float32", 1, 81.0, 81.0), run("bf16", 2, 70.0, 70.0)]  # fmt: skip


def test_recorded_runs():
    """Runs of one kind share a line, with the MACs of one and the minutes from the least to the most."""
    table = training_cost.recorded_costs_table(PAIRED).set_index("run")
    line = table.loc["DCIL, ResNet-20, CIFAR-10, bf16"]
    assert (line["n"], line["training, 10¹² MACs"], line["minutes"]) == (3, "4", "10 to 12")
    every_fourth = changed(PAIRED[0], "config", dense_every=4)
    assert set(training_cost.recorded_costs_table([PAIRED[0], every_fourth])["training, 10¹² MACs"]) == {
        "4",
        "2",
    }  # each a line of its own


def test_minutes_of_runs_that_shared_their_device_are_left_out():
    """Such runs are counted; if there are no others, that is all that is said."""
    packed = [changed(r, "cost", time_s=9e9, shared_by=6) for r in PAIRED[:1]]
    assert training_cost.recorded_costs_table([*PAIRED[2:], *packed]).set_index("run").loc[
        "DCIL, ResNet-20, CIFAR-10, bf16", "minutes"
    ] == ("11 to 12, 1 shared")
    assert training_cost.recorded_costs_table(packed)["minutes"].tolist() == ["1 shared"]
