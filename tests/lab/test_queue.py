"""The queue: what is missing is run, whatever interrupts it, and a second call goes on."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from dcil import records, stopping
from dcil.cli.main import main
from dcil.data import datasets
from dcil.errors import DcilError
from dcil.lab.sweep import grid, queue
from dcil.runs import RunFolder
from dcil.stopping import Stop
from dcil.trainer import Trainer

GRID = """
title: a test
tier: smoke
base: {model: resnet8, epochs: 2, batch_size: 10, mask_period: 2, device: cpu, sparsity: 0.8}
runs:
  - serves: table 1
    axes: {method: [dense, ste]}
    seeds: [0, 1]
"""


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_dataset):
    """A folder with a grid of four runs on a tiny set, in which commands are run."""
    (tmp_path / "grid.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: tiny_dataset)
    return tmp_path


def work(only=None, separate=False, **options):
    runs = only or grid.read_grid("grid.yaml")
    return queue.work_through(runs, records_dir="records", runs_dir="runs", separate=separate, **options)


def states():
    return [s.state for s in grid.statuses(grid.read_grid("grid.yaml"), "records", "runs")]


def test_all_that_is_missing_is_run_once(here, monkeypatch):
    """Four runs, two at a time, four records; a second call trains nothing."""
    assert set(work(pack=2).values()) == {"done"}
    assert len(records.load_all("records")) == 4 and states() == ["done"] * 4
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("trained again"))
    assert list(work().values()) == ["done"] * 4


def test_a_record_not_yet_taken_in(here):
    """A run that is complete in its folder, trained by hand or killed in between, is taken in without training."""
    runs = grid.read_grid("grid.yaml")
    work(only=runs[:1])
    (here / "records" / f"{runs[0].run_id}.json").unlink()
    assert work(only=runs[:1]) == {runs[0].run_id: "done"}
    assert [r["run_id"] for r in records.load_all("records")] == [runs[0].run_id]


def test_a_time_limit_and_another_call(here, monkeypatch):
    """Calls without time for all runs go on where the last one ended, and begin no run with no time left."""
    monkeypatch.setattr(queue, "LEAST_S", 0)
    assert work(minutes=1e-9) == {} and states() == ["missing"] * 4
    step, now = Trainer.step, [0]

    def ticking(self, *words):
        step(self, *words)
        now[0] += 1  # a second per step, eight steps per run, however fast the machine is

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", ticking)
        patch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: now[0]))
        outcomes = work(minutes=12 / 60)
    assert list(outcomes.values()) == ["done", "stopped"] and states() == ["done", "partial", "missing", "missing"]
    assert set(work().values()) == {"done"}


def test_one_failure_stops_no_other(here, monkeypatch):
    """A run whose loss is not finite is reported, its record says why, and the rest is run."""
    monkeypatch.setattr(
        "dcil.trainer.learning_rate", lambda config, *_: 1e30 if (config.method, config.seed) == ("ste", 1) else 0.01
    )
    outcomes = work(pack=2)
    (bad,) = (outcome for name, outcome in outcomes.items() if "ste" in name and "seed1" in name)
    assert bad.startswith("failed: the loss became nan in epoch 1")
    assert sorted(states()) == ["done", "done", "done", "failed"]


@pytest.mark.parametrize("separate", [False, True])
def test_a_run_that_another_process_trains(here, separate):
    """It is left alone, and the others are run."""
    first, second = grid.read_grid("grid.yaml")[:2]
    work(only=[second])
    with RunFolder("runs", first.config).hold():
        outcomes = work(only=[first, second], separate=separate)
    assert outcomes[first.run_id].startswith("held: ") and f"process {os.getpid()}" in outcomes[first.run_id]
    assert sorted(states()) == ["done", "missing", "missing", "missing"]


def test_a_run_that_another_process_takes_meanwhile(here, monkeypatch):
    """If it is free when asked and held when its process begins, it is left alone, and is no failure."""
    (first, *_) = grid.read_grid("grid.yaml")
    with RunFolder("runs", first.config).hold(), monkeypatch.context() as patch:
        patch.setattr(RunFolder, "is_held", lambda self: False)
        (outcome,) = work(only=[first], separate=True).values()
    assert outcome.startswith("held: ") and f"process {os.getpid()}" in outcome


def test_what_a_silent_process_leaves(here, monkeypatch):
    """Its failure gives the exit code and the room on the disk, not the last words of an earlier process."""
    (first, second, *_) = grid.read_grid("grid.yaml")
    log = RunFolder("runs", first.config).path / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("dcil: error: of yesterday\n")
    monkeypatch.setattr(queue, "_call", lambda *_: 2)
    outcome, _ = work(only=[first, second], separate=True).values()
    said = f"failed: it ended with code 2 and wrote nothing to {log}; its disk has [0-9]+ MiB left"
    assert re.fullmatch(said, outcome)
    log.unlink()
    log.mkdir()  # which cannot be written to either
    outcome, _ = work(only=[first, second], separate=True).values()
    assert outcome.startswith("failed: ") and "log.txt" in outcome


def test_what_a_process_shares(here, monkeypatch):
    """It gets its part of the threads, which take no cores from other runs while they wait for each other."""
    (first, *_) = grid.read_grid("grid.yaml")
    seen = []
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(queue, "_call", lambda words, log, env, stop: seen.append(env) or 2)
    work(only=[first], separate=True, pack=2)
    assert [(env["OMP_NUM_THREADS"], env["GOMP_SPINCOUNT"]) for env in seen] == [("4", "1000")]


def test_a_record_that_cannot_be_taken_in(here, monkeypatch):
    """It is a failure of that run; the others go on."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(records, "add", full)
    outcomes = work(only=grid.read_grid("grid.yaml")[:2]).values()
    assert ["was not taken in: " in outcome and "No space left" in outcome for outcome in outcomes] == [True] * 2


def test_another_runs_record_is_no_result(here):
    """In a run's folder, another run's record is this run's failure, not shown as done."""
    one, other = (RunFolder("runs", run.config) for run in grid.read_grid("grid.yaml")[:2])
    work(only=grid.read_grid("grid.yaml")[1:2])
    one.path.mkdir()
    one.record.write_bytes(other.record.read_bytes())
    assert states() == ["damaged", "done", "missing", "missing"]
    outcomes = work(only=grid.read_grid("grid.yaml")[:1])
    assert re.match("failed: .* is the record of another run", outcomes[one.config.run_id])


def test_a_damaged_record_stops_no_other_run(here):
    """A record that a crash left empty is that run's failure, which says how to mend it; the others are run."""
    (first, *_) = grid.read_grid("grid.yaml")
    folder = RunFolder("runs", first.config)
    folder.path.mkdir(parents=True)
    folder.record.touch()
    assert states() == ["damaged", *["missing"] * 3]
    outcomes = work()
    assert re.match("failed: the record .* cannot be read: .*; move it away", outcomes.pop(first.run_id))
    assert set(outcomes.values()) == {"done"} and states() == ["damaged", *["done"] * 3]


def test_a_record_of_nothing_hides_no_other_run(here):
    """A record that is JSON and no record is its run's fault: the other states are shown, and it fails by itself."""
    (first, *_) = grid.read_grid("grid.yaml")
    folder = RunFolder("runs", first.config)
    folder.path.mkdir(parents=True)
    folder.record.write_text("{}")
    assert states() == ["damaged", *["missing"] * 3]
    assert "is not a valid run record" in queue.same_process(Stop(), "runs", None)(first)


def test_a_fault_of_the_code_ends_one_run(here, monkeypatch, capsys):
    """An error that nobody expects is shown with its traceback, and the packed runs beside it go on."""
    step = Trainer.step

    def fail(self, *words):
        if not self.config.seed:
            raise KeyError("no such seed")
        step(self, *words)

    monkeypatch.setattr(Trainer, "step", fail)
    outcomes = sorted(work(pack=2).values())
    assert outcomes == ["done", "done", *["failed: KeyError: 'no such seed'"] * 2]
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=["a GPU's", "the machine's"]
)
def test_memory_that_one_run_lacks(error, here, monkeypatch):
    """Out of memory in one of the packed runs is that run's failure only."""
    step = Trainer.step

    def fill(self, *words):
        if (self.config.method, self.config.seed) == ("ste", 0):
            raise error
        step(self, *words)

    monkeypatch.setattr(Trainer, "step", fill)
    outcomes = work(pack=2).values()
    assert sorted(outcomes) == ["done"] * 3 + [f"failed: {str(error) or 'MemoryError'}"]


def test_tf32_shares_no_process(here):
    """Whether float32 means tf32 is a setting of the process, so packing both is refused before training."""
    text = GRID.replace("method: [dense, ste]", "precision: [tf32, bf16]").replace("device: cpu", "device: cuda")
    (here / "grid.yaml").write_text(text)
    with pytest.raises(DcilError, match="tf32 .* cannot share a process.*--pack 1"):
        work(pack=2)
    assert not (here / "runs").exists()


def test_the_command(here, capsys):
    """It exits with 75 while something is left and 0 at the end, and takes --status and --only."""
    assert main(["queue", "grid.yaml", "--status"]) == 0
    out = capsys.readouterr().out
    assert out.count("missing  0.00 of 2") == 4 and "4 missing" in out and "table 1" in out
    assert main(["queue", "grid.yaml", "--no-separate", "--only", "digits-resnet8-ste-s0.8-e2-seed0"]) == 0
    assert "1 done" in capsys.readouterr().out
    assert main(["queue", "grid.yaml", "--no-separate", "--minutes", "0.000001"]) == 75
    assert "1 done, 3 missing" in capsys.readouterr().out
    assert main(["queue", "grid.yaml", "--only", "digits-resnet8-stt-s0.8-e2-seed0"]) == 2
    assert "did you mean 'digits-resnet8-" in capsys.readouterr().err
    assert main(["queue", "grid.yaml", "--pack", "0"]) == 2
    assert "--pack is 0" in capsys.readouterr().err


def test_a_queue_that_is_killed_takes_its_children_along(tmp_path):
    """After kill -9 of the queue, the run that it began stops by itself, with a checkpoint."""
    text = GRID.replace("epochs: 2, batch_size: 10", "epochs: 500, batch_size: 64").replace("[0, 1]", "[0]")
    (tmp_path / "grid.yaml").write_text(text.replace("[dense, ste]", "[dense]"))
    (planned,) = grid.read_grid(tmp_path / "grid.yaml")
    folder = RunFolder(tmp_path / "runs", planned.config)
    words = [sys.executable, "-m", "dcil", "queue", "grid.yaml"]
    killed = subprocess.Popen(words, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})

    def wait_for(what):
        deadline = time.monotonic() + 240
        while not what() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert what()

    wait_for(folder.checkpoint.exists)
    killed.kill()
    killed.wait()
    wait_for(lambda: "stopped by SIGTERM" in (folder.path / "log.txt").read_text())
    wait_for(lambda: not folder.is_held())


@pytest.fixture
def sigterm():
    """A SIGTERM that comes too late does not end the tests."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield signal.SIGTERM
    signal.signal(signal.SIGTERM, before)


def test_processes(tmp_path, monkeypatch, capsys, sigterm):
    """On a CPU each run is a process: SIGTERM stops them with checkpoints, and another call finishes them."""
    text = GRID.replace("epochs: 2, batch_size: 10", "epochs: 2, batch_size: 64").replace("[dense, ste]", "[dense]")
    (tmp_path / "grid.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["queue", "grid.yaml", "--pack", "2"]

    def stop_at_a_checkpoint():
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/checkpoint.pt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), sigterm)

    threading.Thread(target=stop_at_a_checkpoint).start()
    assert main(words) == 75 and "stopped" in capsys.readouterr().err
    assert main(words) == 0
    found = records.load_all(tmp_path / "records")
    assert len(found) == 2 and any(len(r["cost"]["sessions"]) > 1 for r in found)
    assert "stopped by SIGTERM" in "".join(p.read_text() for p in tmp_path.glob("runs/*/log.txt"))
