"""What is measured: each benchmark yields rows that compare a case with a baseline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, count, cycle

import torch

from benchmarks import several
from benchmarks.bench import SPARSITY, Act, Bench, Row, compare, peak_mib, stepper
from benchmarks.folders import imagenet, loading
from dcil.config import RunConfig
from dcil.data.datasets import Dataset
from dcil.data.loaders import PAD, TrainLoader
from dcil.data.vision import import_torchvision
from dcil.dual_path import set_masks
from dcil.errors import DcilError
from dcil.metrics import evaluate


def step(bench: Bench) -> Iterator[Row]:
    """one optimizer step as it trains: DCIL and STE against dense"""
    times = bench.times({method: bench.stepper(method) for method in ("dcil", "ste", "dense")})
    for method in ("dcil", "ste"):
        yield bench.row(method, "dense", compare(times[method], times["dense"]))


def eager(bench: Bench) -> Iterator[Row]:
    """a DCIL step as it trains against the same in plain eager float32"""
    times = bench.times({"dcil": bench.stepper(), "plain": bench.stepper(precision="float32", fast=False)})
    yield bench.row("dcil", "dcil, eager float32", compare(times["dcil"], times["plain"]))


def refresh(bench: Bench) -> Iterator[Row]:
    """choosing the masks anew: its share of the training time"""
    trainer = bench.trainer()
    times = bench.times({"step": stepper(trainer), "masks": lambda: set_masks(trainer.dual, SPARSITY)})
    period = trainer.config.mask_period
    whole = [period * step + masks for step, masks in zip(times["step"], times["masks"], strict=True)]
    yield bench.row("masks", "steps and masks", compare(times["masks"], whole))


def per_image(bench: Bench) -> Act:
    """Return a function that makes a batch with torchvision, image by image, from PIL images already in memory."""
    transforms = import_torchvision().transforms
    pipeline = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=PAD),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(bench.few.mean, bench.few.std),
        ]
    )
    images = cycle([transforms.functional.to_pil_image(image) for image in bench.few.train_images])
    return lambda: torch.stack([pipeline(next(images)) for _ in range(bench.batch_size)]).to(bench.device)


def loader(bench: Bench) -> Iterator[Row]:
    """making a batch (crop, flip, normalise): its share of a step; torchvision's time for the same"""
    assert isinstance(bench.dataset, Dataset)
    ours = TrainLoader(bench.dataset, bench.batch_size, 0, torch.device(bench.device))
    batches = chain.from_iterable(map(ours.epoch, count()))
    acts: dict[str, Act] = {"batch": lambda: next(batches), **{m: bench.stepper(m) for m in ("dense", "dcil")}}
    try:
        acts["torchvision"] = per_image(bench)
    except DcilError as error:
        print(f"loader: nothing to compare with: {error}")
    times = bench.times(acts)
    for method in ("dense", "dcil"):
        yield bench.row("batch", f"{method} step", compare(times["batch"], times[method]))
    if "torchvision" in times:
        yield bench.row("torchvision", "batch", compare(times["torchvision"], times["batch"]))


def memory(bench: Bench) -> Iterator[Row]:
    """what a step allocates at its peak, beyond weights, momentum and data: DCIL and STE against dense"""
    mib = {method: peak_mib(bench.trainer(method, fast=False)) for method in ("dcil", "ste", "dense")}
    for method in ("dcil", "ste"):
        ratio = mib[method] / mib["dense"]
        same = {"ratio": ratio, "ratio_q1": ratio, "ratio_q3": ratio, "rounds": 1}
        yield bench.row(method, "dense", same, mem_mib=mib[method], baseline_mib=mib["dense"])


def epoch(bench: Bench) -> Iterator[Row]:
    """an epoch, test of every pass included, by network: DCIL against dense; on a CPU estimated from steps"""
    whole, how = (measured, "measured") if bench.device == "cuda" else (estimated, "estimated from steps")
    for model in ("resnet20", "resnet32", "resnet56", "wrn28_2"):
        part = replace(bench, model=model)
        seconds = whole(part)
        yield part.row(
            "dcil",
            "dense",
            compare(seconds["dcil"], seconds["dense"]),
            how=how,
            recipe_epochs=RunConfig(model=model).recipe().epochs,
        )


def estimated(bench: Bench) -> dict[str, list[float]]:
    """Return the seconds per epoch of both methods, estimated from those of batches, steps, masks and tests."""
    runs = {method: bench.trainer(method) for method in ("dense", "dcil")}
    batches = chain.from_iterable(map(runs["dcil"].loader.epoch, count()))
    acts: dict[str, Act] = {"batch": lambda: next(batches), "masks": lambda: set_masks(runs["dcil"].dual, SPARSITY)}
    for method, run in runs.items():
        acts[method] = stepper(run)
        acts[f"{method} test"] = partial(evaluate, run.dual, run.dual.pass_names, run.test, run.engine)
    times = bench.times(acts, title=bench.model, fewer=3)
    steps = -(-len(bench.dataset.train_labels) // bench.batch_size)
    tests = len(bench.dataset.test_labels) / len(bench.few.test_labels)
    refreshes = {"dense": 0, "dcil": steps / runs["dcil"].config.mask_period}
    return {
        method: [
            steps * (batch + step) + refreshes[method] * masks + tests * test
            for batch, step, masks, test in zip(
                times["batch"], times[method], times["masks"], times[f"{method} test"], strict=True
            )
        ]
        for method in runs
    }


def measured(bench: Bench) -> dict[str, list[float]]:
    """Return the measured seconds of whole epochs of both methods; the first of each turn is not counted."""

    def act(method: str) -> Act:
        trainer = bench.trainer(method, whole=True)
        run = trainer.run(progress=False)

        def one_epoch() -> None:
            with trainer.engine.on_stream():
                next(ended for ended in run if ended)

        return one_epoch

    return bench.times({method: act(method) for method in ("dense", "dcil")}, title=bench.model, fewer=3)


def scaling(bench: Bench) -> Iterator[Row]:
    """DCIL against dense by batch size and by width"""
    sizes = [replace(bench, batch_size=size) for size in (32, 64, 256, 512)]
    small = bench.batch_size if bench.device == "cuda" else 32
    widths = [replace(bench, model=f"wrn28_{k}", batch_size=small) for k in (2, 4, 8)]
    for part in (*sizes, *widths):
        acts = {method: part.stepper(method) for method in ("dcil", "dense")}
        times = part.times(acts, title=f"{part.model}, {part.batch_size}", fewer=3)
        yield part.row("dcil", "dense", compare(times["dcil"], times["dense"]))


def ranks(bench: Bench) -> Iterator[Row]:
    """a DCIL step that two ranks share against one process, with the same threads; CPU only"""
    if bench.device != "cpu":
        print("ranks: not run: on GPUs it takes a machine with two of them")
        return
    yield bench.row("dcil, 2 ranks", "dcil, 1 process", several.in_ranks(bench, 2))


def gpu(bench: Bench) -> Iterator[Row]:
    """captured steps against eager ones; runs packed on one GPU, in threads and as processes"""
    if bench.device != "cuda":
        print("gpu: not run: needs a GPU")
        return
    plain = {"eager bf16": bench.stepper(fast=False), "eager float32": bench.stepper(precision="float32", fast=False)}
    times = bench.times({"captured": bench.stepper(), **plain})
    for name in plain:
        yield bench.row("dcil, captured", f"dcil, {name}", compare(times["captured"], times[name]))
    for how in (several.in_threads, several.in_processes):
        seconds = how(bench, (1, 2, 4, 8))
        for k in (2, 4, 8):  # the ratio is the gain in throughput
            yield bench.row("1 alone", f"1 of {k}, {how.__name__.replace('_', ' ')}", compare(seconds[1], seconds[k]))


BENCHMARKS = {act.__name__: act for act in (step, eager, refresh, loader, memory, epoch, scaling, ranks, gpu,
                                           loading, imagenet)}  # fmt: skip
