"""Grids of runs: what a file in experiments/ asks for, how much of it is done, and how long the rest will take."""

from __future__ import annotations

import difflib
import itertools
import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml

from dcil import records
from dcil.config import RunConfig, preset
from dcil.cost import passes_a_step
from dcil.errors import DcilError, reason, unknown
from dcil.io.files import expanded, read_bytes
from dcil.lab import checkout
from dcil.lab.yaml_loaders import Plain
from dcil.machine import device_name
from dcil.run_record import Run
from dcil.runs import RunFolder

TOP = ("title", "tier", "base", "runs")
STATES = ("done", "running", "partial", "failed", "damaged", "missing")
ENTRY = ("serves", "priority", "set", "axes", "seeds")
MOST_BYTES, MOST_RUNS = 2**20, 10_000  # of a grid file; of one entry in it


@dataclass(frozen=True)
class Planned:
    """One run that a grid asks for: its resolved configuration, how urgent it is, which figures or tables it serves.

    Priority 1 comes first. Within a priority, the first seed of every entry comes before the second seed of any.
    `turn` is the place of the run's seed in its entry's list.
    """

    config: RunConfig
    priority: int
    turn: int
    serves: tuple[str, ...]

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.config.run_id


def urgency(run: Planned) -> tuple[int, int]:
    """Return the sort key that puts the most urgent run first."""
    return run.priority, run.turn


@dataclass(frozen=True)
class Status:
    """How far a planned run is: one of `STATES`, epochs done, and an estimate of the seconds left."""

    planned: Planned
    state: str
    epochs: float
    left_s: float  # NaN if no record allows an estimate


def read_grid(path: str | Path, precision: str | None = None) -> list[Planned]:
    """Return the runs that a grid file asks for, each once, most urgent first; `precision`, if given, overrides theirs.

    The file has `title`, `tier`, `base` (fields of `RunConfig`, which may include `preset: NAME`) and `runs`, a list of
    entries with `serves` (the figure or table), `priority`, `set` (fields), `axes` (field: list of values; every
    combination is run) and `seeds`. Raises `DcilError` naming the file and the entry for anything else, and for a run
    that is not of the file's tier.
    """
    path = expanded(path)
    planned: dict[str, Planned] = {}
    grid = _load(path)
    for number, entry in enumerate(grid["runs"], start=1):
        try:
            runs = _planned(grid, entry, number, {"precision": precision} if precision else {})
        except (DcilError, TypeError, AttributeError) as error:
            raise DcilError(f"{path}, entry {number}: {error}") from error
        for run in runs:
            planned[run.run_id] = _merged(planned.get(run.run_id), run)
    return sorted(planned.values(), key=urgency)  # stable: equally urgent runs keep the file's order


def _load(path: Path) -> dict[str, Any]:
    """Return a grid file's content; only its top-level keys are checked, and that `runs` is a list."""
    try:
        grid = yaml.load(read_bytes(path, MOST_BYTES), Plain)
    except DcilError:
        raise
    except FileNotFoundError as error:
        raise _absent(path) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DcilError(f"the grid {path} cannot be read: {reason(error)}") from error
    if not isinstance(grid, dict) or not isinstance(grid.get("runs"), list):
        raise DcilError(f"the grid {path} must hold {', '.join(TOP)}; `runs` is a list of entries")
    try:
        _refuse_unknown(grid, TOP)
    except DcilError as error:
        raise DcilError(f"the grid {path}: {error}") from error
    return grid


def _absent(path: Path) -> DcilError:
    """Return the error for a grid that is not there, naming the one of the book that was probably meant."""
    experiments = checkout.root() / "experiments"
    known = {file.stem: file for file in sorted(experiments.glob("*.yaml"))}
    near = difflib.get_close_matches(path.stem, known, n=1)
    listed = ", ".join(file.name for file in known.values())
    hint = f"did you mean {known[near[0]]}?" if near else f"the book's are in {experiments}: {listed}"
    return DcilError(f"there is no grid {path}; {hint}")


def _planned(grid: dict[str, Any], entry: Any, number: int, overrides: dict[str, Any]) -> list[Planned]:
    """Return the runs of a grid's entry, the `number`-th (its default priority), with some fields overridden."""
    if not isinstance(entry, dict) or not entry.get("serves"):
        raise DcilError("it must be a mapping and name the table or figure it serves")
    _refuse_unknown(entry, ENTRY)
    priority = entry.get("priority", number)
    if not isinstance(priority, int):
        raise DcilError(f"priority is {priority!r}; it must be a whole number, 1 first")
    runs = []
    for values in _combinations(grid.get("base") or {}, entry):
        config = _config(values | overrides).resolve()
        if grid.get("tier") and config.tier != grid["tier"]:
            raise DcilError(f"{config.run_id} is of tier {config.tier!r}, the grid of {grid['tier']!r}")
        turn = entry["seeds"].index(config.seed) if "seeds" in entry else 0
        runs.append(Planned(config, priority, turn, (str(entry["serves"]),)))
    return runs


def _merged(known: Planned | None, run: Planned) -> Planned:
    """Return a run that several entries ask for: as urgent as the most urgent of them, serving what each serves."""
    if known is None:
        return run
    return replace(min(known, run, key=urgency), serves=tuple(dict.fromkeys(known.serves + run.serves)))


def _refuse_unknown(given: dict[str, Any], allowed: tuple[str, ...]) -> None:
    for name in given:
        if name not in allowed:
            raise unknown("key", name, allowed)


def _combinations(base: dict[str, Any], entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Return, for every run of an entry, the configuration fields it sets."""
    fixed = base | (entry.get("set") or {})
    if "seed" in (entry.get("axes") or {}):
        raise DcilError("seed is no axis; list the seeds under `seeds`")
    axes = {"seed": entry.get("seeds", [fixed.get("seed", 0)])} | (entry.get("axes") or {})
    for name, values in axes.items():
        if not isinstance(values, list):
            raise DcilError(f"{name} must be a list of values, e.g. [{values}]")
    count = math.prod(map(len, axes.values()))
    if count > MOST_RUNS:
        raise DcilError(f"its axes have {count} combinations, more than {MOST_RUNS:,}; split it, or shorten them")
    return [fixed | dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _config(values: dict[str, Any]) -> RunConfig:
    values = dict(values)
    name = values.pop("preset", None)
    return preset(name, **values) if name else RunConfig.from_dict(values)


def statuses(runs: list[Planned], records_dir: str | Path, runs_dir: str | Path) -> list[Status]:
    """Return how far each planned run is, read from the records and the run folders."""
    known = {run.run_id: run for run in records.load_all(records_dir)}
    return [_status(plan, known, RunFolder(runs_dir, plan.config)) for plan in runs]


def _status(plan: Planned, known: dict[str, Run], folder: RunFolder) -> Status:
    epochs, left_s = plan.config.epochs, epoch_s(plan.config, known.values())
    try:
        record = known.get(plan.run_id) or folder.read_record()
        if record and record["status"] == "complete":
            return Status(plan, "done", epochs, 0.0)
        done = folder.epochs_done() if folder.path.exists() else 0.0
    except DcilError:  # a damaged checkpoint or record, or another run's; starting the run says how to mend it
        return Status(plan, "damaged", 0.0, left_s * epochs)
    state = "running" if folder.is_held() else "failed" if record else "partial" if done else "missing"
    return Status(plan, state, done, left_s * (epochs - done))


def epoch_s(config: RunConfig, known: Collection[Run]) -> float:
    """Return an estimate of the seconds that an epoch takes, from known runs on this machine's device.

    For a CUDA run on a machine without a GPU, runs on any GPU count. The estimate is the median over the epochs of runs
    with the same data set, network, precision and method. If there are none, runs of other methods are used, scaled by
    the number of passes a step; NaN if there are none of those either.
    """
    here = [run for run in known if run.config.device == config.device]
    if config.device == "cpu" or torch.cuda.is_available():  # otherwise runs on any GPU count
        device = device_name(torch.device(config.device))
        here = [run for run in here if run.environment.device == device]
    for same in (("dataset", "model", "precision", "method"), ("dataset", "model", "precision")):
        seconds_a_pass = []
        for run in here:
            alike = all(getattr(run.config, name) == getattr(config, name) for name in same)
            if alike and not math.isnan(run.cost.own_time_s):
                seconds_a_pass += [epoch.time_s / passes_a_step(run.config) for epoch in run.curve]
        if seconds_a_pass:
            return passes_a_step(config) * median(seconds_a_pass)
    return math.nan


def summary_in_words(found: list[Status]) -> str:
    """Return one line: how many runs are in each state, and the hours left."""
    states = Counter(status.state for status in found)
    known = [status.left_s for status in found if not math.isnan(status.left_s)]
    line = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    line += f"; about {sum(known) / 3600:.1f} h left, one run at a time"
    if without := len(found) - len(known):
        line += f", and {without} run(s) whose cost no record of this device tells"
    return line
