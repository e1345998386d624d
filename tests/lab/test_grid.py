"""Grids: what a file asks for, how far its runs are, and the errors for a wrong file."""

import math
import os
import re
from dataclasses import replace
from statistics import median

import pytest
import torch

from dcil import records
from dcil.errors import DcilError
from dcil.lab.checkout import root
from dcil.lab.sweep import grid
from dcil.machine import device_name
from dcil.runs import RunFolder
from dcil.stopping import Stopped
from dcil.train import fit
from tests.lab.fakes import changed, fake_run

GRID = """
title: a test
tier: smoke
base: {model: resnet8, epochs: 2, batch_size: 10, mask_period: 2, device: cpu, sparsity: 0.8}
runs:
  - serves: table 2
    priority: 2
    axes: {method: [dcil, ste]}
    seeds: [0, 1]
  - serves: table 1
    priority: 1
    set: {method: ste}
    seeds: [1]
"""


@pytest.fixture
def path(tmp_path):
    """A good grid of four runs."""
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path / "grid.yaml"


def test_runs_in_order(path):
    """The most urgent come first, then one run of each kind before a second seed of any; each comes once."""
    path.write_text(
        GRID + "  - {serves: table 3, priority: 2, set: {method: static}, seeds: [5, 6]}\n"
        "  - {serves: table 4, priority: 3, set: {method: random}, seeds: [0]}\n"
    )
    runs = grid.read_grid(path)
    assert [(r.config.method, r.config.seed, r.priority) for r in runs] == [
        ("ste", 1, 1),
        ("dcil", 0, 2),
        ("ste", 0, 2),
        ("static", 5, 2),
        ("dcil", 1, 2),
        ("static", 6, 2),
        ("random", 0, 3),  # its first seed is less urgent than their second
    ]
    assert runs[0].serves == ("table 2", "table 1")
    assert all(r.config.model == "resnet8" and r.config.resolve() == r.config for r in runs)


def test_a_seed_in_set(path):
    """Without `seeds`, the seed is that of `set` or `base`."""
    path.write_text(GRID + "  - {serves: table 3, set: {method: static, seed: 7}}\n")
    assert grid.read_grid(path)[-1].config.seed == 7


def test_a_grid_in_another_precision(path):
    """`queue --precision` asks for the same runs in another precision, under ids of their own."""
    usual, other = grid.read_grid(path), grid.read_grid(path, "bf16")
    assert [r.config for r in other] == [replace(r.config, precision="bf16") for r in usual]
    assert not {r.run_id for r in usual} & {r.run_id for r in other}


def test_the_books_grids_do_not_depend_on_the_machine(monkeypatch):
    """They name their precision, so that a run has one id on any machine."""
    files = sorted((root() / "experiments").glob("*.yaml"))
    asked = []
    for has_bf16 in (True, False):
        monkeypatch.setattr("dcil.machine.has_bf16", lambda device, answer=has_bf16: answer)
        asked.append([run.run_id for file in files for run in grid.read_grid(file)])
    assert asked[0] == asked[1]


@pytest.mark.parametrize("file", sorted((root() / "experiments").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_books_grids(file):
    """Every committed grid is readable and asks for something."""
    assert grid.read_grid(file)


def test_the_records_of_chapter_3_are_the_quick_grid():
    """The committed records that chapter 3 shows are, by their ids, runs that the grid asks for."""
    asked = {run.run_id for run in grid.read_grid(root() / "experiments" / "quick.yaml")}
    kept = {r["run_id"] for r in records.load_all(root() / "records", epochs=16, model="resnet20", dataset="cifar10")}
    assert kept & asked and kept - asked == set()


def test_a_grid_that_is_not_there(tmp_path, monkeypatch):
    """A bare name, a misspelt one and a call from another folder are answered with the file that is meant."""
    expected = root() / "experiments" / "quick.yaml"
    monkeypatch.chdir(tmp_path)
    for name in ("quick", "quick.yaml", "experiments/quick.yaml", "experiments/quik.yaml"):
        with pytest.raises(DcilError, match=re.escape(f"there is no grid {name}; did you mean {expected}?")):
            grid.read_grid(name)
    with pytest.raises(DcilError, match="there is no grid nothing; the book's are in .*experiments: ablation.yaml, "):
        grid.read_grid("nothing")


@pytest.mark.parametrize(
    "change, message",
    [
        (("title:", "titel:"), "unknown key 'titel': did you mean 'title'"),
        (("serves: table 1", "searves: table 1"), "entry 2: it must be a mapping and name the table"),
        (("priority: 1", "prority: 1"), "entry 2: unknown key 'prority': did you mean 'priority'"),
        (("priority: 1", "priority: soon"), "entry 2: priority is 'soon'"),
        (("method: ste}", "methd: ste}"), "entry 2: unknown parameter 'methd': did you mean 'method'"),
        (("[dcil, ste]", "[dcil, stee]"), "entry 1: unknown method 'stee'"),
        (("[dcil, ste]}", "[dcil], seed: [3]}"), "entry 1: seed is no axis; list the seeds under `seeds`"),
        (("[dcil, ste]", "dcil"), "entry 1: method must be a list of values"),
        (("tier: smoke", "tier: quick"), "is of tier 'smoke', the grid of 'quick'"),
        (("runs:", "rows:"), "must hold title, tier, base, runs"),
        (("base: {", "base: ["), "cannot be read"),
        (("sparsity: 0.8", "sparsity: 80"), "did you mean 0.8"),
    ],
    ids=lambda v: v if isinstance(v, str) else v[1],
)
def test_a_wrong_grid(path, change, message):
    """The error names the file, the entry and what was meant."""
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(DcilError, match=re.escape(message)) as error:
        grid.read_grid(path)
    assert str(path) in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_grid_for_a_gpu_elsewhere(path, tmp_path):
    """It can be read and looked at without a GPU; only running it is refused."""
    path.write_text(GRID.replace("device: cpu", "device: cuda"))
    runs = grid.read_grid(path)
    assert {r.config.device for r in runs} == {"cuda"}
    assert {s.state for s in grid.statuses(runs, tmp_path, tmp_path)} == {"missing"}
    with pytest.raises(DcilError, match="sees no GPU"):
        fit(runs[0].config, runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_status(path, tiny_dataset, tmp_path):
    """A run is done, running, partial or missing by its files, and the time left follows from similar records."""
    first, second, third, fourth = runs = grid.read_grid(path)
    runs_dir, records_dir = tmp_path / "runs", tmp_path / "records"
    assert {s.state for s in grid.statuses(runs, records_dir, runs_dir)} == {"missing"}
    assert all(math.isnan(s.left_s) for s in grid.statuses(runs, records_dir, runs_dir))

    def train(run, **options):
        return fit(run.config, dataset=tiny_dataset, runs_dir=runs_dir, progress=False, **options)

    train(first)
    records.add(RunFolder(runs_dir, first.config).record, records_dir)
    train(second)
    with pytest.raises(Stopped):
        train(third, max_minutes=1e-9)
    with RunFolder(runs_dir, fourth.config).hold():
        states = grid.statuses(runs, records_dir, runs_dir)
    assert [s.state for s in states] == ["done", "done", "partial", "running"]
    assert [s.epochs for s in states] == [2, 2, 0.25, 0]
    assert grid.summary_in_words(states).startswith("2 done, 1 running, 1 partial; about 0.0 h left")
    # Only ste has a record here: its median epoch for ste, twice that for the two passes of dcil.
    epoch_s = median(row["time_s"] for row in records.read(records_dir / f"{first.run_id}.json")["curve"])
    assert third.config.method == "ste" and fourth.config.method == "dcil"
    assert [s.left_s for s in states] == pytest.approx([0, 0, 1.75 * epoch_s, 4 * epoch_s])


def at_hand():
    """Return a run of DCIL on this machine's processor that takes a minute per epoch."""
    return changed(fake_run("dcil", 0, 80.0), "environment", device=device_name(torch.device("cpu")))


def test_the_pace_of_fewer_dense_passes():
    """If two passes took 60 s per epoch, 1.25, with the second at every fourth step, take 37.5 s."""
    known = at_hand()
    assert grid.epoch_s(replace(known.config, dense_every=4), [known]) == 37.5


def test_the_pace_of_packed_runs_is_no_measure():
    """Six runs that shared a device took six times as long as a run alone will."""
    alone = at_hand()
    packed = changed(alone, "cost", time_s=360.0, shared_by=6) | {"curve": [alone["curve"][0] | {"time_s": 360.0}]}
    assert grid.epoch_s(alone.config, [packed, alone, packed]) == 60.0
    assert math.isnan(grid.epoch_s(alone.config, [packed]))


def test_status_leaves_damaged_checkpoints_alone(path, tiny_dataset, tmp_path, capsys):
    """A damaged checkpoint is named, and nothing is moved."""
    (run, *_) = runs = grid.read_grid(path)
    fit(run.config, dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    folder = RunFolder(tmp_path, run.config)
    folder.record.unlink()
    folder.checkpoint.write_bytes(b"broken")
    before = sorted(os.listdir(folder.path))
    assert grid.statuses(runs, tmp_path / "none", tmp_path)[0].epochs == 1
    assert str(folder.checkpoint) in capsys.readouterr().err
    assert sorted(os.listdir(folder.path)) == before
    folder.previous.unlink()
    assert grid.statuses(runs, tmp_path / "none", tmp_path)[0].state == "damaged"
