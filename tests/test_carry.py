"""A grid on a machine that nothing reaches: carried there in loads, stopped halfway, resumed and brought home."""

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch

from dcil import RunConfig, records
from dcil.lab.sweep import grid
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
    set: {epochs: 9}
"""
LIMIT_MIB = 0.2  # splits the small repository below into about three loads
PATIENCE_S = 300


def git(*words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.org", *words], check=True, capture_output=True)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A small repository with the library, the tools and a grid, all committed: the working directory."""
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
    """Pack the grid; returns its loads, in order."""
    assert carry.main(["pack", "grid.yaml", "--limit", str(LIMIT_MIB), *more]) == 0
    return sorted(Path("_build/carry").resolve().iterdir())


def test_a_grid_goes_there_and_comes_home(home, tmp_path, monkeypatch, capsys):
    """A grid begun on one machine, watched, stopped and finished on a second gives the records of an unbroken run."""
    short, long = (run.config for run in grid.read_grid("grid.yaml"))
    words = [
        "queue",
        "grid.yaml",
        "--only",
        long.run_id,
        "--no-separate",
        "--runs-dir",
        "_build/runs",
        "--records-dir",
        "_build/records",
    ]
    straight = subprocess.Popen([sys.executable, "-m", "dcil", *words])  # meanwhile

    loads = pack()
    assert len(loads) > 1 and all(sum(f.stat().st_size for f in d.iterdir()) < LIMIT_MIB * 2**20 for d in loads)

    first = tmp_path / "first" / "dcil-away"
    for load in reversed(loads):  # one at a time, in any order
        assert not first.exists()
        subprocess.run([sys.executable, load / "unpack.py", "--into", first], check=True)
    monkeypatch.chdir(first)
    assert carry.main(["start", "grid.yaml", "--no-separate"]) == 0
    assert carry.main(["start", "grid.yaml"]) == 2 and "under way here already" in capsys.readouterr().err
    began, said = time.monotonic(), ""
    while "1 record(s), 1 checkpoint(s)" not in said:
        assert time.monotonic() - began < PATIENCE_S, said
        assert carry.main(["look", "--wait", "0.5"]) == 0
        assert "the queue is running" in (said := capsys.readouterr().out), said
    assert carry.main(["stop", "--wait", str(PATIENCE_S)]) == 0
    said = capsys.readouterr().out
    assert "the queue has ended" in said and "1 done, 1 partial" in said and "1 record(s), 1 checkpoint(s)" in said

    monkeypatch.chdir(home)
    assert carry.main(["home", str(first / "_build" / "home.tgz")]) == 0
    assert [r["run_id"] for r in records.load_all("records")] == [short.run_id]
    assert 1 <= RunFolder("runs", long).epochs_done() < 9

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

    assert straight.wait(PATIENCE_S) == 0
    unbroken, carried = (records.read(f"{folder}/{long.run_id}.json") for folder in ("_build/records", "records"))
    assert records.without_timing(carried) == records.without_timing(unbroken)
    assert not carried["environment"]["dirty"]
    assert [len(record["cost"]["sessions"]) for record in (unbroken, carried)] == [1, 2]


@pytest.fixture
def data_dir(tmp_path):
    """A data folder with a folder of images, whose bytes do not compress."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.jpg").write_bytes(random.Random(0).randbytes(300_000))
    return folder


def test_loads_that_are_damaged_missing_or_of_another_commit(home, data_dir, tmp_path, capsys):
    """Each fault is named with its remedy, nothing half-unpacked is left, and the right load mends it."""
    there = ["--into", str(tmp_path / "there")]
    first, second, *more = map(str, pack("--data-dir", str(data_dir), "--data", "images"))
    cargo = Path(second, "cargo")
    cargo.write_bytes((whole := cargo.read_bytes())[:-1])
    assert unpack.main([first, *more, *there]) == 0 and "missing: load2\n" in capsys.readouterr().out
    assert unpack.main([second, *there]) == 2
    assert f"the checksum of {cargo} differs; carry load2 again" in capsys.readouterr().err
    assert not (tmp_path / "there").exists()
    cargo.write_bytes(whole)
    for _ in range(2):
        assert unpack.main([second, *there]) == 0
    images = Path("data", "images", "a.jpg")
    assert (tmp_path / "there" / images).read_bytes() == (tmp_path / images).read_bytes()
    assert (tmp_path / "there" / "dcil" / "train.py").read_text() == (home / "dcil" / "train.py").read_text()

    git("commit", "--quiet", "--allow-empty", "-m", "another")
    assert unpack.main([*map(str, pack()), *there]) == 2
    assert "is not at" in (said := capsys.readouterr().err) and "choose another --into" in said
    assert unpack.main([str(tmp_path), *there]) == 2 and "is no load" in capsys.readouterr().err


def test_what_is_not_committed_does_not_travel(home, capsys):
    """A changed file and a grid that is not committed are refused before anything is packed."""
    Path("other.yaml").write_text(GRID, encoding="utf-8")
    assert carry.main(["pack", "other.yaml"]) == 2 and "other.yaml is in no commit" in capsys.readouterr().err
    Path("dcil/train.py").write_text("# changed", encoding="utf-8")
    assert carry.main(["pack", "grid.yaml"]) == 2 and "only the last commit travels" in capsys.readouterr().err
    assert not Path("_build").exists()


def test_a_run_that_is_trained_here(home, capsys):
    """A run being trained here is refused by name; the others can be packed without it, and `start` is told so."""
    short, long = (run.config for run in grid.read_grid("grid.yaml"))
    with RunFolder("runs", short).hold():
        assert carry.main(["pack", "grid.yaml"]) == 2
        assert f"{short.run_id} is being trained here by process {os.getpid()}" in capsys.readouterr().err
        (load,) = pack("--limit", "60", "--only", long.run_id)
    assert json.loads((load / "load.json").read_text())["start"] == f"grid.yaml --only {long.run_id}"


def test_data_that_must_be_named(home, tmp_path, capsys):
    """CIFAR is packed by itself and must be there; for a folder of images, the user names what is packed."""
    for dataset, words in (("cifar10", "cifar10 is not in"), ("imagenette", "name what travels of")):
        text = GRID.replace("method: ste", f"dataset: {dataset}").replace("tier: smoke\n", "")
        Path("grid.yaml").write_text(text, encoding="utf-8")
        git("commit", "--quiet", "--all", "-m", dataset)
        assert carry.main(["pack", "grid.yaml", "--data-dir", str(tmp_path)]) == 2 and words in capsys.readouterr().err


def test_the_newest_checkpoints_that_fit_come_home(tmp_path, monkeypatch, capsys):
    """Checkpoints are archived newest first, up to the limit, and those left behind are named."""
    monkeypatch.chdir(tmp_path)
    newer, older = (RunConfig(dataset="digits", seed=seed).resolve() for seed in (0, 1))
    for age_s, config in ((0, newer), (100, older)):
        folder = RunFolder("runs", config)
        folder.save({"curve": [{}, {}], "weights": torch.rand(100_000)})  # 0.4 MB
        os.utime(folder.checkpoint, (1e9 - age_s, 1e9 - age_s))
    said = carry.archive(tmp_path / "home.tgz", 0.6)
    assert said.startswith("0 record(s), 1 checkpoint(s)") and older.run_id in said and newer.run_id not in said
    assert Path("home.tgz").stat().st_size < 0.6 * 2**20

    shutil.rmtree("runs")
    assert carry.main(["home", "home.tgz"]) == 0 and RunFolder("runs", newer).epochs_done() == 2
    RunFolder("runs", newer).save({"curve": [{}, {}, {}]})  # trained further meanwhile
    assert carry.main(["home", "home.tgz"]) == 0 and RunFolder("runs", newer).epochs_done() == 3
    assert f"as far here: {newer.run_id}" in capsys.readouterr().out


def test_what_cannot_be_taken_in(tmp_path, monkeypatch, capsys):
    """A truncated archive is refused as a whole; a bad record is named and keeps nothing else out."""
    monkeypatch.chdir(tmp_path)
    config = RunConfig(dataset="digits").resolve()
    RunFolder("runs", config).save({"curve": [{}]})
    Path("records").mkdir()
    Path("records", "bad.json").write_text("{}", encoding="utf-8")
    with tarfile.open("both.tgz", "w:gz") as tar:
        tar.add("records")
        tar.add("runs")
    shutil.rmtree("runs")
    Path("cut.tgz").write_bytes(Path("both.tgz").read_bytes()[:-20])
    assert carry.main(["home", "cut.tgz"]) == 2 and "cut.tgz is damaged or not whole" in capsys.readouterr().err
    assert not Path("runs").exists()
    assert carry.main(["home", "both.tgz"]) == 2 and "bad.json is not a valid run record" in capsys.readouterr().err
    assert RunFolder("runs", config).epochs_done() == 1


def test_where_nothing_was_started(tmp_path, monkeypatch, capsys):
    """`look` and `stop` say that no grid was started."""
    monkeypatch.chdir(tmp_path)
    for verb in ("look", "stop"):
        assert carry.main([verb]) == 2 and "no grid was started in" in capsys.readouterr().err
