"""Training: one configuration in, one run record out, whatever happens on the way."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import Any

from dcil import distributed, machine, settings
from dcil.config import RunConfig
from dcil.data import datasets
from dcil.data.decoding import Store
from dcil.data.images import ImageFolder
from dcil.errors import DcilError
from dcil.io.files import expanded
from dcil.io.messages import say
from dcil.runs import RunFolder
from dcil.stopping import Stop, Stopped
from dcil.trainer import NotFinite, Trainer

CHECKPOINT_S = 300  # seconds between checkpoints within an epoch
AGREE_EVERY = 8  # steps between two decisions of several ranks on whether to stop


def fit(
    config: RunConfig,
    *,
    dataset: datasets.Dataset | ImageFolder | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    runs_dir: str | Path = "runs",
    resume: bool = True,
    progress: bool = True,
    max_minutes: float | None = None,
    stop: Stop | None = None,
    fast: bool = True,
    workers: int | None = None,
    decoded_gib: float = 10.0,
) -> dict[str, Any]:
    """Train a configuration and return its record, also written to `runs_dir`/<run id>/record.json.

    A complete run is not trained again, and a run with a checkpoint resumes from it; with `resume=False` the run starts
    from scratch and its files are replaced. `dataset` replaces the data set that the configuration names. After
    `max_minutes`, and on Ctrl-C, SIGTERM or SIGHUP, the run stops between two steps with a checkpoint and raises
    `Stopped`; a signal before the first step raises `KeyboardInterrupt` at once. `stop`, a `dcil.stopping.Stop` that
    other runs can share, has its own limit in place of `max_minutes`. `fast=False` takes plain eager steps on a
    GPU. Images of a folder are prepared by `workers` processes (by default none on a CPU, one per core with a GPU) and
    kept decoded under `runs_dir` if they fit into `decoded_gib`.

    Raises `DcilError` for bad input, a missing device, a damaged file, a run that another process holds, and a loss
    that is not finite, in which case a record with status "failed" is left beside the checkpoint. Under `torchrun`
    every rank calls `fit` and gets the same record. See `dcil.records.validate` for the content of a record.

    >>> import tempfile, dcil
    >>> config = dcil.preset("smoke", method="dcil", sparsity=0.9, epochs=1, device="cpu")
    >>> record = dcil.fit(config, runs_dir=tempfile.mkdtemp(), progress=False)
    >>> record["status"], sorted(record["final"]["passes"])
    ('complete', ['dense', 'sparse'])
    """
    _refuse_other_types(config, dataset)
    if stop and max_minutes is not None:
        raise DcilError(
            f"max_minutes is {max_minutes} and stop is given, which has a limit of its own; leave max_minutes out, and "
            f"make it with one: Stop(max_minutes={max_minutes})"
        )
    config = config.resolve()
    machine.require_posix()
    machine.require(config.device)  # before anything is written
    runs = expanded(runs_dir).absolute()  # a notebook's next cell may change the working directory while this trains
    folder, store = RunFolder(runs, config), Store(runs / "decoded", decoded_gib)
    team = distributed.join(config.device)
    with contextlib.ExitStack() as stack:
        stop = stop or stack.enter_context(Stop(max_minutes, waits=False))
        finished = partial(_finished, folder, dataset, data_dir)
        if resume and (done := team.first(finished)):
            return done
        stack.enter_context(settings.plain(config.device))
        # Before the run's folder is made: if its data are missing, nothing is left behind.
        dataset = dataset or team.in_turn(lambda: datasets.load(config.dataset, data_dir, download, store))
        team.first(lambda: stack.enter_context(folder.hold()))
        if resume and (done := team.first(finished)):  # by the process that held it until now
            return done
        if not resume:  # else a run killed now would later be taken for the old, complete one
            team.first(folder.forget)
        trainer = Trainer(config, dataset, team, fast, workers)
        stack.enter_context(trainer.engine.counted())
        stack.enter_context(trainer.engine.on_stream())
        if state := team.first(folder.load):
            folder.refuse_other_data(state.get("data_sha256"), trainer.data_sha256)
            trainer.load_state(state)
            if progress and team.is_first:
                say(f"going on after {trainer.position:.2f} of {config.epochs} epochs")
        stop.waits = True
        return _train(trainer, folder, stop, progress)


def _refuse_other_types(config: RunConfig, dataset: datasets.Dataset | ImageFolder | None) -> None:
    if not isinstance(config, RunConfig):
        raise DcilError(
            f"config is a {type(config).__name__}; it must be a RunConfig, e.g. dcil.preset('smoke') or "
            "dcil.RunConfig.from_dict({'method': 'dcil'})"
        )
    if not isinstance(dataset, (datasets.Dataset, ImageFolder, type(None))):
        raise DcilError(
            f"dataset is a {type(dataset).__name__}; it must be a dcil.data.Dataset of tensors, or left out: the "
            "configuration names a data set, e.g. RunConfig(dataset='cifar10')"
        )


def _finished(
    folder: RunFolder, dataset: datasets.Dataset | ImageFolder | None, data_dir: str | Path | None
) -> dict[str, Any] | None:
    """Return the record of a complete run; raises `DcilError` if the run was trained on other data than given now."""
    if record := folder.finished():
        now = dataset.checksum() if dataset else datasets.checksum_of_folder(folder.config.dataset, data_dir)
        folder.refuse_other_data(record["data"]["sha256"], now)
    return record


def _train(trainer: Trainer, folder: RunFolder, stop: Stop, progress: bool) -> dict[str, Any]:
    """Run a trainer, with checkpoints, to its end or until `stop` gives a reason to stop."""
    config, team, saved = trainer.config, trainer.team, time.monotonic()

    def due() -> tuple[str | None, bool]:
        return stop.reason(), time.monotonic() - saved > CHECKPOINT_S

    try:
        for ended_epoch in trainer.run(progress):
            if team.size > 1 and not ended_epoch and trainer.steps_done % AGREE_EVERY:
                continue
            if ended_epoch and progress and team.is_first:
                say(summary_line(trainer.curve[-1], config))
            # The first rank's clock and signals decide for all ranks.
            reason, overdue = team.first(due)
            if ended_epoch or reason or overdue:
                team.first(partial(folder.save, trainer.state()))
                saved = time.monotonic()
            if reason and trainer.position < config.epochs:
                raise stopped(trainer, reason, stop.code)
    except NotFinite as error:
        record = team.first(partial(trainer.record, "failed", str(error)))
        team.first(partial(folder.write_record, record))
        raise
    record = team.first(trainer.record)
    team.first(partial(folder.write_record, record))
    return record


def stopped(trainer: Trainer, reason: str, code: int) -> Stopped:
    """Return the error of a run that stops early: why, where, and how much is left."""
    done, epochs = trainer.position, trainer.config.epochs
    pace_s = sum(s["time_s"] for s in trainer.sessions) / done
    return Stopped(
        f"{trainer.config.run_id} stopped by {reason} after {done:.2f} of {epochs} epochs, its checkpoint "
        f"written; {epochs - done:.2f} epochs are left, about {(epochs - done) * pace_s / 60:.1f} min. "
        "The same command goes on from here",
        code,
    )


def summary_line(row: dict[str, Any], config: RunConfig) -> str:
    """Return a one-line summary of an epoch, for people."""
    shown = "  ".join(f"{name} {top['top1']:.2f} %" for name, top in row["test"].items())
    return (
        f"epoch {row['epoch'] + 1:3d}/{config.epochs}  loss {row['loss']['total']:.4f}  test {shown}  "
        f"sparsity {row['sparsity']:.4f}  lr {row['lr']:.4g}  {row['time_s']:.1f} s"
    )
