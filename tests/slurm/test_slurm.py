"""A grid on a real SLURM, through the profile that people use: killed runs come back, and all end as records."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dcil import records
from dcil.lab.sweep import grid

ROOT = Path(__file__).parents[2]
START = ROOT / "tests" / "slurm" / "start.sh"
PATIENCE_S = 1200  # two minutes on two free cores, ten on two busy ones
GRID = """\
title: six short runs
tier: smoke
base: {preset: smoke, device: cpu, epochs: 3}
runs:
  - serves: the test of SLURM
    axes: {method: [dense, ste, dcil]}
    seeds: [0, 1]
"""

pytestmark = pytest.mark.slurm


@pytest.fixture
def cluster(tmp_path):
    """A SLURM of one node with two CPUs; returns the environment in which its commands work."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    try:
        subprocess.run([START, folder], check=True)
        yield os.environ | {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    finally:
        subprocess.run([START, "stop", folder], check=True)


def words(folder, *more):
    """Return the command that a person types on a cluster, with folders of its own and shorter waits."""
    config = [f"grid={folder / 'grid.yaml'}", f"runs_dir={folder / 'runs'}", f"records_dir={folder / 'records'}"]
    return [
        sys.executable,
        "-m",
        "snakemake",
        "runs",
        "--profile",
        "profiles/slurm",
        "--set-threads",
        "run=1",
        "--set-resources",
        "run:runtime=30",
        "--slurm-init-seconds-before-status-checks",
        "5",
        "--slurm-logdir",
        str(folder / "logs"),
        *more,
        "--config",
        *config,
    ]


def submissions(log):
    """Return the SLURM job ids of each run, oldest first."""
    found = {}
    for job, run_id in re.findall(r"submitted with SLURM jobid (\d+) \(log: \S*/rule_run/([^/]+)/", log.read_text()):
        found.setdefault(run_id, []).append(job)
    return found


def wait_for_checkpoint(runs_dir, snakemake, leave=None):
    """Wait until a run that is not `leave` trains on from its first checkpoint; returns (run id, process id)."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_S and snakemake.poll() is None:
        for path in runs_dir.glob("*/checkpoint.pt"):
            if path.parent.name != leave and not path.with_name("previous.pt").exists():
                with contextlib.suppress(FileNotFoundError):  # nobody trains it at this moment
                    return path.parent.name, json.loads(path.with_name("holder.json").read_text())["pid"]
        time.sleep(0.05)
    pytest.fail(f"no run got to a checkpoint; snakemake: {snakemake.poll()}")


def test_killed_jobs_come_back(cluster, tmp_path):
    """One run is killed with kill -9, one by SLURM: both resume, all six are recorded, and none is ever run again."""
    (tmp_path / "grid.yaml").write_text(GRID)
    wanted = {run.run_id for run in grid.read_grid(tmp_path / "grid.yaml")}
    log, snakemake = tmp_path / "snakemake.log", None
    with open(log, "w", encoding="utf-8") as out:
        snakemake = subprocess.Popen(words(tmp_path), cwd=ROOT, env=cluster, stdout=out, stderr=out)
    try:
        shot, pid = wait_for_checkpoint(tmp_path / "runs", snakemake)
        os.kill(pid, signal.SIGKILL)
        cancelled, _ = wait_for_checkpoint(tmp_path / "runs", snakemake, leave=shot)
        subprocess.run(["scancel", "--signal=KILL", submissions(log)[cancelled][-1]], env=cluster, check=True)
        code = snakemake.wait(PATIENCE_S)
    finally:
        snakemake.kill()
        print(log.read_text())
    assert code == 0

    done = {path.stem: records.read(path) for path in (tmp_path / "records").glob("*.json")}
    assert set(done) == wanted and len(wanted) == 6
    assert {record["status"] for record in done.values()} == {"complete"}
    assert {run_id: len(jobs) > 1 for run_id, jobs in submissions(log).items()} == {
        run_id: run_id in (shot, cancelled) for run_id in wanted
    }
    for run_id, record in done.items():  # each resumed where it was, none from its start
        begun = [session["first_epoch"] for session in record["cost"]["sessions"]]
        assert len(begun) == (2 if run_id in (shot, cancelled) else 1) and begun == sorted(set(begun)), run_id
    left = subprocess.run(["squeue", "--noheader"], env=cluster, check=True, capture_output=True, text=True)
    assert left.stdout == ""

    # A record is history: other resources, other parameters, even force, and still there is nothing to run.
    again = words(tmp_path, "--dry-run", "--forceall", "--set-resources", "run:runtime=60")
    dry = subprocess.run(again, cwd=ROOT, env=cluster, check=True, capture_output=True, text=True)
    assert "rule run:" not in dry.stdout + dry.stderr
