"""How benchmarks measure: steps exactly as in training, variants timed in turns, peak memory of a step."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch.utils.benchmark import Timer
from tqdm import tqdm

from dcil.config import RunConfig
from dcil.data.datasets import Dataset
from dcil.data.images import ImageFolder
from dcil.distributed import ALONE, Ranks
from dcil.dual_path import set_masks
from dcil.engine import CapturedStep
from dcil.methods import phase_of
from dcil.trainer import Trainer

Act = Callable[[], object]
Row = dict[str, Any]
SPARSITY = 0.9
TURN_S = 0.2  # a turn times calls for at least this long, after a warm-up


@dataclass(frozen=True)
class Bench:
    """What a benchmark is given: the machine, the network, all images (`dataset`) and a few of them for timing steps.

    `data_dir` is where other data sets are.
    """

    device: str
    threads: int
    rounds: int
    model: str
    batch_size: int
    dataset: Dataset | ImageFolder
    few: Dataset
    data_dir: str | None = None

    def trainer(
        self, method: str = "dcil", precision: str = "bf16", fast: bool = True, team: Ranks = ALONE, whole: bool = False
    ) -> Trainer:
        """Return a trainer of a run at its final sparsity, with the mutual loss on."""
        config = RunConfig(
            dataset="cifar10",
            model=self.model,
            method=method,
            sparsity=SPARSITY,
            ramp_end=0,
            distill_from=0,
            batch_size=self.batch_size,
            precision=precision,
            channels_last=precision == "bf16",
            device=self.device,
        )
        return Trainer(config.resolve(), self.dataset if whole else self.few, team, fast)

    def stepper(self, method: str = "dcil", steps: int = 1, **how: Any) -> Act:
        """Return a function that takes `steps` optimizer steps of such a run."""
        return stepper(self.trainer(method, **how), steps)

    def times(self, acts: Mapping[str, Act], title: str = "", fewer: int = 1) -> dict[str, list[float]]:
        """Return, by act, the seconds per call, one value per round."""
        return in_turns(acts, max(2, self.rounds // fewer), self.threads, title)

    def row(self, case: str, baseline: str, result: Row, **more: Any) -> Row:
        """Return a row of the results, which compares a case with a baseline."""
        known = {
            "case": case,
            "baseline": baseline,
            "model": self.model,
            "batch_size": self.batch_size,
            "data": self.dataset.name,
        }
        return known | result | more


def stepper(trainer: Trainer, steps: int = 1) -> Act:
    """Return a warmed-up function that takes optimizer steps as training does, on batches made beforehand."""
    config, engine = trainer.config, trainer.engine
    phase = phase_of(config, config.epochs, 0)

    def step() -> None:
        with engine.on_stream():
            for _ in range(steps):
                images, labels = next(batches)
                trainer.take_step(images, labels, phase)

    with engine.on_stream():
        batches = cycle(list(islice(trainer.loader.epoch(0), 4)))
        engine.set_rate(trainer.optimizer, config.lr)
        if trainer.method.prunes:
            set_masks(trainer.dual, SPARSITY)
    for _ in range(CapturedStep.WARMUP + 1 if engine.captures else 1):
        step()
    return step


def in_turns(acts: Mapping[str, Act], rounds: int, threads: int, title: str) -> dict[str, list[float]]:
    """Return, by act, the seconds per call, one value per round; acts take turns within a round: A B, A B, ..."""
    timers = {name: Timer("act()", globals={"act": act}, num_threads=threads) for name, act in acts.items()}
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in tqdm(range(rounds), desc=title, leave=False, disable=None):
        for name, timer in timers.items():
            times[name].append(timer.blocked_autorange(min_run_time=TURN_S).median)
    return times


def compare(times: Sequence[float], baseline: Sequence[float]) -> Row:
    """Return both medians, and the median and quartiles of the ratios, which are paired by round."""
    ratios = [a / b for a, b in zip(times, baseline, strict=True)]
    q1, middle, q3 = quantiles(ratios, n=4, method="inclusive")
    return {
        "median_s": median(times),
        "baseline_s": median(baseline),
        "ratio": middle,
        "ratio_q1": q1,
        "ratio_q3": q3,
        "rounds": len(ratios),
    }


def peak_mib(trainer: Trainer) -> float:
    """Return the peak of what one step allocates beyond weights, masks, momentum and data, in MiB.

    Only PyTorch's tensors count, not the scratch memory of libraries. On a CPU the profiler lists every allocation, so
    the result depends neither on malloc nor on other processes.
    """
    step, device = stepper(trainer), trainer.engine.device
    trainer.optimizer.zero_grad(set_to_none=True)  # gradients count: the step allocates them
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return peak_allocated_mib(step)


def peak_allocated_mib(act: Act) -> float:
    """Return by how much PyTorch's allocations on the CPU rise at most during a call, in MiB."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        act()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = [e for e in json.loads(path.read_text(encoding="utf-8"))["traceEvents"] if e["name"] == "[memory]"]
    return max(accumulate(e["args"]["Bytes"] for e in sorted(events, key=lambda e: e["ts"]))) / 2**20
