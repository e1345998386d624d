"""Working through a grid: runs what is missing, most urgent first, several at a time, within a time limit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO

import torch
from tqdm import tqdm

from dcil import machine, records
from dcil.data import datasets
from dcil.data.decoding import Store
from dcil.data.images import ImageFolder
from dcil.errors import DcilError
from dcil.io.messages import say
from dcil.lab.sweep.grid import Planned, statuses
from dcil.lab.sweep.train_command import argv_of_config
from dcil.runs import Held, RunFolder
from dcil.stopping import TRY_AGAIN, Stop, Stopped
from dcil.train import fit

# Exit codes of a run that was stopped: at its time limit, or by a signal, even one that came before it had a handler.
STOPPED = {TRY_AGAIN, *(128 + s for s in Stop.SIGNALS), *(-s for s in Stop.SIGNALS)}
LEAST_S = 5  # no run is started with less time left than this
# A run's outcome: "done", "stopped", "held", or "failed: why".
Runner = Callable[[Planned], str]


def work_through(
    runs: list[Planned],
    *,
    records_dir: str | Path,
    runs_dir: str | Path,
    data_dir: str | Path | None = None,
    minutes: float | None = None,
    pack: int = 1,
    separate: bool | None = None,
) -> dict[str, str]:
    """Run what is missing, `pack` at a time, and add the records to `records_dir`; returns the outcomes by run id.

    On a GPU the packed runs share one process, each in its own thread and CUDA stream, because kernels of separate
    processes only take turns there. On a CPU each run is a process with its share of the threads. `separate` overrides
    this choice. Safe to call repeatedly: finished runs are skipped, unfinished ones resume, and runs that another
    process holds are left to it.
    """
    with Stop(minutes) as stop:
        found = statuses(runs, records_dir, runs_dir)
        done = [status.planned for status in found if status.state == "done"]
        todo = [status.planned for status in found if status.state != "done"]
        on_gpu = any(run.config.device == "cuda" for run in todo)
        if separate if separate is not None else not on_gpu:
            runner = separate_process(stop, runs_dir, data_dir, pack)
        else:
            if pack > 1 and len({run.config.precision == "tf32" for run in todo}) > 1:
                raise DcilError(
                    "runs in tf32 and in another precision cannot share a process: it has one setting for "
                    "both; use --separate, or --pack 1"
                )
            runner = same_process(stop, runs_dir, data_dir)
        outcomes = {run.run_id: "done" for run in done}
        for run in done:
            folder = RunFolder(runs_dir, run.config)
            # Trained by hand, or the queue was killed just before it added the record.
            if not (Path(records_dir) / f"{run.run_id}.json").exists() and folder.finished():
                records.add(folder.record, records_dir)
        with tqdm(total=len(runs), initial=len(outcomes), unit="run", disable=None, file=sys.stderr) as bar:
            for run, outcome in _in_parallel(todo, runner, pack, stop):
                if outcome == "done":
                    outcome = _take_in(RunFolder(runs_dir, run.config), records_dir)
                bar.update(outcome == "done")
                outcomes[run.run_id] = outcome
                say(f"{run.run_id}: {outcome}")
    return outcomes


def _take_in(folder: RunFolder, records_dir: str | Path) -> str:
    """Add the record of a run that has just ended to the records; returns the run's outcome."""
    try:
        records.add(folder.record, records_dir)
    except (DcilError, OSError) as error:  # the other runs go on
        return f"failed: it is complete, but its record was not taken in: {error}"
    return "done"


def _in_parallel(todo: list[Planned], runner: Runner, pack: int, stop: Stop):
    """Yield (run, outcome) as runs end, keeping `pack` of them under way; none is started once `stop` has a reason."""
    waiting = list(todo)
    under_way: dict[Future, Planned] = {}
    with ThreadPoolExecutor(pack) as pool:
        while waiting or under_way:
            while waiting and len(under_way) < pack and not stop.reason() and stop.left_s() > LEAST_S:
                run = waiting.pop(0)
                under_way[pool.submit(runner, run)] = run
            if not under_way:  # no time left
                return
            # Short waits: Python handles signals only between them.
            ended: set[Future] = wait(under_way, timeout=0.5, return_when=FIRST_COMPLETED).done
            for future in ended:
                yield under_way.pop(future), future.result()


def same_process(stop: Stop, runs_dir: str | Path, data_dir: str | Path | None) -> Runner:
    """Return a runner that trains in this process, one thread and one CUDA stream per run."""
    sets: dict[str, datasets.Dataset | ImageFolder] = {}

    def run(planned: Planned) -> str:
        config = planned.config
        try:
            if config.dataset not in sets:
                sets[config.dataset] = datasets.load(config.dataset, data_dir, store=Store(Path(runs_dir) / "decoded"))
            fit(config, dataset=sets[config.dataset], runs_dir=runs_dir, progress=False, stop=stop)
        except Stopped:
            return "stopped"
        except Held as error:
            return f"held: {error}"
        except (DcilError, RuntimeError, OSError, MemoryError) as error:  # a GPU's "out of memory" is a RuntimeError
            return f"failed: {str(error) or type(error).__name__}"
        except Exception as error:  # a fault of this code ends this run; the others go on
            traceback.print_exc()
            return f"failed: {type(error).__name__}: {error}"
        return "done"

    return run


def separate_process(stop: Stop, runs_dir: str | Path, data_dir: str | Path | None, pack: int) -> Runner:
    """Return a runner that trains each run in its own process, with 1/`pack` of the threads, and logs to `log.txt`."""
    threads = max(1, torch.get_num_threads() // pack)

    def run(planned: Planned) -> str:
        folder = RunFolder(runs_dir, planned.config)
        words = [sys.executable, "-m", "dcil", "train", *argv_of_config(planned.config), "--runs-dir", str(runs_dir)]
        words += ["--data-dir", str(data_dir)] if data_dir else []
        words += ["--max-minutes", f"{stop.left_s() / 60:.3f}"] if stop.minutes else []
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            if folder.is_held():
                return f"held: by {folder.holder()}"
            with open(folder.path / "log.txt", "ab") as log:
                began = log.tell()
                env = machine.SHORT_SPIN | os.environ | {"OMP_NUM_THREADS": str(threads)}
                code = _call([*words, "--until-eof"], log, env, stop)
        except OSError as error:
            return f"failed: {error}"
        if code == 0:
            return "done"
        if code in STOPPED:
            return "stopped"
        kind = "held" if code == Held.code else "failed"  # another process may have taken it since the check above
        return f"{kind}: {_last_words(folder.path / 'log.txt', began, code)}"

    return run


def _call(words: list[str], log: IO[bytes], env: dict[str, str], stop: Stop) -> int:
    """Run a command to its end and return its exit code; if `stop` receives a signal, terminate the command, once."""
    # The child has its own process group, so that Ctrl-C reaches only this process, which passes it on. However this
    # process ends, the child's standard input closes, and the child then stops too.
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env, start_new_session=True
    ) as child:
        told = False
        while child.poll() is None:
            if stop.received is not None and not told:
                child.terminate()
                told = True
            time.sleep(0.1)
    return child.returncode


def _last_words(log: Path, began: int, code: int) -> str:
    """Return the last line that a command logged after offset `began`; if none, its exit code and free disk space."""
    with open(log, "rb") as file:
        file.seek(began)
        said = file.read().decode(errors="replace").strip().splitlines()
    if said:
        return f"{said[-1].removeprefix('dcil: error: ')} ({log})"
    room_mib = shutil.disk_usage(log.parent).free / 2**20
    return f"it ended with code {code} and wrote nothing to {log}; its disk has {room_mib:.0f} MiB left"
