"""Parallelism: ranks of one run, and several runs packed on one device, in threads or in processes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.benchmark import Timer

from benchmarks.bench import Act, Bench, Row, compare
from dcil import distributed
from dcil.errors import DcilError

STEPS = 20  # steps that a packed run takes per timed call


def in_ranks(bench: Bench, size: int) -> Row:
    """Compare a DCIL step that `size` ranks share with one of a single process; both have all the threads."""
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "bench.pickle"
        given.write_bytes(pickle.dumps(replace(bench, dataset=bench.few)))
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(size),
            "-m",
            "benchmarks.several",
            str(given),
        ]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    if done.returncode:
        raise DcilError(f"the ranks failed: {done.stderr.strip()[-500:]}")
    return compare(*json.loads(done.stdout.strip().splitlines()[-1]))


def as_rank(bench: Bench) -> None:
    """Act as one of the ranks: take steps with the others; in alternation, the first rank takes steps alone."""
    team = distributed.join(bench.device)
    share = max(1, bench.threads // team.size)
    torch.set_num_threads(share)
    shared, alone = bench.stepper(team=team), bench.stepper() if team.is_first else None
    times: tuple[list[float], list[float]] = [], []
    for _ in range(max(2, bench.rounds // 3)):
        # timeit, because every rank must take the same number of steps.
        times[0].append(Timer("act()", globals={"act": shared}, num_threads=share).timeit(2).mean)
        if alone:
            times[1].append(Timer("act()", globals={"act": alone}, num_threads=bench.threads).timeit(2).mean)
        dist.barrier()  # the others wait here, idle
    if team.is_first:
        print(json.dumps(times))


def in_threads(bench: Bench, counts: Sequence[int]) -> dict[int, list[float]]:
    """Return, by the number of runs, each in a thread with its stream, wall time divided by the steps of all runs."""
    runs = [bench.stepper(steps=STEPS) for _ in range(max(counts))]

    def act(k: int) -> Act:
        pool = ThreadPoolExecutor(k)
        return lambda: list(pool.map(lambda run: run(), runs[:k]))

    return packed(bench, {k: act(k) for k in counts}, "threads")


def in_processes(bench: Bench, counts: Sequence[int]) -> dict[int, list[float]]:
    """Return the same for runs in a process of their own each."""
    spawn, workers = multiprocessing.get_context("spawn"), []
    for _ in range(max(counts)):
        ours, theirs = spawn.Pipe()
        spawn.Process(target=as_worker, args=(replace(bench, dataset=bench.few), theirs), daemon=True).start()
        theirs.close()
        workers.append(ours)

    def act(k: int) -> Act:
        def turn() -> None:
            for worker in workers[:k]:
                worker.send("go")
            for worker in workers[:k]:
                worker.recv()

        return turn

    act(max(counts))()  # wait until all have started
    times = packed(bench, {k: act(k) for k in counts}, "processes")
    for worker in workers:
        worker.send("stop")
    return times


def as_worker(bench: Bench, orders: Connection) -> None:
    """Act as one of the packed processes: take steps when told."""
    torch.set_num_threads(bench.threads)
    run = bench.stepper(steps=STEPS)
    while orders.recv() == "go":
        run()
        if bench.device == "cuda":
            torch.cuda.synchronize()
        orders.send("done")


def packed(bench: Bench, acts: dict[int, Act], title: str) -> dict[int, list[float]]:
    """Return, by the number of runs, wall time divided by the steps of all runs; in an act every run takes `STEPS`."""
    times = bench.times({str(k): act for k, act in acts.items()}, title, fewer=3)
    return {k: [seconds / (k * STEPS) for seconds in times[str(k)]] for k in acts}


if __name__ == "__main__":
    as_rank(pickle.loads(Path(sys.argv[1]).read_bytes()))
