"""A grid on a machine that nothing reaches: carried there in loads, ended half-way, gone on with, brought home."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dcil import records
from dcil.lab import grid
from dcil.runs import RunFolder
from tools import carry, unpack

ROOT = Path(__file__).parents[1]
GRID = """\
title: two short runs
tier: smoke
base: {preset: smoke, device: cpu, method: ste}
runs:
  - serves: the test of loads
    set: {epochs: 1}
  - serves: the test of loads
    set: {epochs: 4}
"""
LIMIT_MIB = 0.2  # three loads or so of the small repository below
PATIENCE_S = 300


def git(*words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.org", *words], check=True, capture_output=True)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A small repository with the library, the tool and a grid, all committed; commands are given in it."""
    here = tmp_path / "home"
    for name in ("dcil", "tools"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", "requirements.lock"):
        shutil.copy(ROOT / name, here)
    (here / "grid.yaml").write_text(GRID)
    monkeypatch.chdir(here)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "all")
    return here


def pack(*more):
    """The loads of the grid, in order."""
    assert carry.main(["pack", "grid.yaml", "--limit", str(LIMIT_MIB), *more]) == 0
    return sorted(Path("_build/carry").resolve().iterdir())


def test_a_grid_goes_there_and_comes_home(home, tmp_path, monkeypatch, capsys):
    """Begun on one machine, looked in on, ended half-way, done on a second: the records of an unbroken run."""
    short, long = (run.config for run in grid.read("grid.yaml"))
    loads = pack()
    assert len(loads) > 1 and all(sum(f.stat().st_size for f in d.iterdir()) < LIMIT_MIB * 2**20 for d in loads)

    first = tmp_path / "first" / "dcil-away"
    for load in reversed(loads):  # one at a time, in any order
        assert not first.exists()
        subprocess.run([sys.executable, load / "unpack.py", "--into", first], check=True)
    monkeypatch.chdir(first)
    assert carry.main(["start", "grid.yaml", "--no-separate"]) == 0
    assert carry.main(["start", "grid.yaml"]) == 2 and "under way here already" in capsys.readouterr().err
    began = time.monotonic()
    while not RunFolder("runs", long).checkpoint.exists():
        assert carry.is_running() and time.monotonic() - began < PATIENCE_S, carry.LOG.read_text()
        time.sleep(0.05)
    assert carry.main(["look"]) == 0 and "the queue is running" in capsys.readouterr().out
    assert carry.main(["stop", "--wait", str(PATIENCE_S)]) == 0
    said = capsys.readouterr().out
    assert "the queue has ended" in said and "1 done, 1 partial" in said and "1 record(s), 1 checkpoint(s)" in said

    monkeypatch.chdir(home)
    assert carry.main(["home", str(first / "_build" / "home.tgz")]) == 0
    assert [r["run_id"] for r in records.load_all("records")] == [short.run_id]
    assert 1 <= RunFolder("runs", long).epochs_done() < 4

    second = tmp_path / "second"
    assert unpack.main([*map(str, pack()), "--into", str(second)]) == 0  # the checkpoint and the record travel too
    monkeypatch.chdir(second)
    assert carry.main(["start", "grid.yaml", "--no-separate"]) == 0
    capsys.readouterr()
    assert carry.main(["look", "--wait", str(PATIENCE_S)]) == 0 and "2 done" in capsys.readouterr().out
    monkeypatch.chdir(home)
    for _ in range(2):  # given again, it changes nothing
        assert carry.main(["home", str(second / "_build" / "home.tgz"), str(first / "_build" / "home.tgz")]) == 0
    assert f"done here: {long.run_id}" in capsys.readouterr().out

    straight = [sys.executable, "-m", "dcil", "queue", "grid.yaml", "--no-separate", "--runs-dir", "_build/runs",
                "--records-dir", "_build/records"]  # fmt: skip
    subprocess.run(straight, check=True, capture_output=True)
    for config in (short, long):
        ours, theirs = (records.read(f"{d}/{config.run_id}.json") for d in ("_build/records", "records"))
        assert records.without_timing(ours) == records.without_timing(theirs)
        assert not theirs["environment"]["dirty"]
        assert len(theirs["cost"]["sessions"]) == (2 if config == long else 1)
