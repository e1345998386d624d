"""Run records with types: a recorded run as seen by everything that reads records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from dcil import dynamics, methods, metrics
from dcil.config import ResolvedConfig, RunConfig
from dcil.cost import passes_a_step
from dcil.data.datasets import DATASETS

NAN = float("nan")
# Settings of how a run is executed, and its seed; they do not distinguish methods.
CARRIED_OUT = ("seed", "device", "precision", "channels_last", "sync_batchnorm")
Part = TypeVar("Part")


@dataclass(frozen=True)
class Environment:
    """The hardware and software of a run, and the version of its code."""

    python: str
    torch: str
    device: str
    threads: int
    commit: str
    dirty: bool
    date: str


@dataclass(frozen=True)
class Data:
    """The data set of a run: its name, the checksum of its files, and its sizes in images."""

    name: str
    sha256: str
    train_size: int
    test_size: int
    num_classes: int


@dataclass(frozen=True)
class Cost:
    """The time and memory of a run (seconds, MiB) and the MACs per image and stored values of its deployed network.

    `train_macs` is the cost of an image in training, over all passes. `shared_by` is the number of concurrent runs on
    the device; `layer_sparsity` is the fraction removed by name of the weight, in no particular order.
    """

    time_s: float
    mem_mib: float
    dense_macs: int
    inference_macs: int
    train_macs: int
    num_params: int
    nonzeros: dict[str, int]
    layer_sparsity: dict[str, float] = field(default_factory=dict)
    shared_by: int = 1

    @property
    def own_time_s(self) -> float:
        """The seconds of a run that had its device to itself; NaN if the device was shared."""
        return self.time_s if self.shared_by == 1 else NAN


@dataclass(frozen=True)
class Epoch:
    """One epoch of a run's curve. `epoch` counts from 0; accuracies are top-1 in percent by pass.

    `reestimated` has test accuracies with re-estimated norm statistics. Values that were not measured are NaN or empty.
    """

    epoch: int
    target_sparsity: float
    sparsity: float
    flips: int
    refreshes: int
    time_s: float
    train: dict[str, float]
    test: dict[str, float]
    reestimated: dict[str, float] = field(default_factory=dict)
    ever_kept: float = NAN
    gradients: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class End:
    """Final test top-1 of a pass in percent: last epoch, mean of the last ten, and the best at target sparsity.

    Nothing uses the best. It is NaN, with epoch None, for a run that never reached its target sparsity.
    """

    last: float
    mean_last_ten: float
    best_at_target: float
    best_epoch: int | None


@dataclass(frozen=True, eq=False)
class Run(Mapping[str, Any]):
    """A recorded run. `raw` is its record, as `dcil.records.validate` returned it.

    It is also a read-only mapping of the record: `run["config"]["seed"]` is `run.raw["config"]["seed"]`, and two runs
    are equal if their records are. `run | {"status": "failed"}` is a new run.
    """

    raw: dict[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        return self.raw[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __or__(self, other: Mapping[str, Any]) -> Run:
        return Run(self.raw | {**other})

    def __repr__(self) -> str:
        return f"Run({self.run_id!r})"

    @property
    def run_id(self) -> str:
        """A readable name and a hash of the configuration."""
        return self.raw["run_id"]

    @property
    def tier(self) -> str:
        """How much a number of this run proves: "smoke", "quick" or "paper"."""
        return self.raw["tier"]

    @property
    def complete(self) -> bool:
        """Whether the run finished; a failed run is recorded, but is not a result."""
        return self.raw["status"] == "complete"

    @cached_property
    def config(self) -> ResolvedConfig:
        """The resolved configuration; fields that were added after the record have their defaults."""
        return RunConfig.from_dict(self.raw["config"]).resolve()

    @cached_property
    def variant(self) -> str:
        """How the run was trained, in words: see `dcil.run_record.variant`."""
        return variant(self.config)

    @cached_property
    def environment(self) -> Environment:
        """The hardware and software of the run."""
        return _part(Environment, self.raw["environment"])

    @cached_property
    def data(self) -> Data:
        """The data set of the run."""
        return _part(Data, self.raw["data"])

    @cached_property
    def cost(self) -> Cost:
        """The cost of the run and of its network."""
        return _part(Cost, self.raw["cost"])

    @cached_property
    def curve(self) -> tuple[Epoch, ...]:
        """The epochs of the run, in order."""
        return tuple(_epoch(row) for row in self.raw["curve"])

    @cached_property
    def by_pass(self) -> dict[str, End]:
        """The final accuracies of each pass, the deployed one first; empty for a run that failed in its first epoch."""
        return {name: _end(end) for name, end in self.raw["final"]["passes"].items()}

    @property
    def deployed(self) -> str:
        """The name of the pass that is used after training, the method's first."""
        return methods.get(self.config.method).passes[0]

    @property
    def last(self) -> float:
        """Test top-1 of the deployed pass at the last epoch, in percent: the headline. NaN without an epoch."""
        return self.by_pass[self.deployed].last if self.by_pass else NAN

    @property
    def sparsity(self) -> float:
        """The fraction of weights removed, measured at the last epoch; NaN without an epoch."""
        return self.curve[-1].sparsity if self.curve else NAN

    @property
    def epoch_macs(self) -> float:
        """The MACs that the machine computes in an epoch of training: masks save none, skipped passes do."""
        passes = len(methods.get(self.config.method).rules)
        return passes_a_step(self.config) / passes * self.cost.train_macs * self.data.train_size

    @property
    def macs(self) -> float:
        """The MACs of the whole training."""
        return self.epoch_macs * self.config.epochs

    @property
    def overlap_with_last(self) -> dict[int, float]:
        """The Jaccard index of each stored mask with the last one, by epoch; empty for a record without masks."""
        held = self.raw.get("masks", {}).get("overlap_with_last", ())
        return {row["epoch"]: row["jaccard"] for row in held}

    @property
    def mask_stride(self) -> int:
        """The distance between two positions of the sampled final mask."""
        return self.raw["masks"]["stride"]

    @cached_property
    def final_mask(self) -> np.ndarray | None:
        """The sampled final mask as a boolean vector, see `dcil.dynamics.final_mask`; None if the record has none."""
        return dynamics.final_mask(self.raw)

    @cached_property
    def images_right(self) -> dict[str, np.ndarray] | None:
        """By pass, which test images are right at the end, see `dcil.metrics.images_right`; None if not recorded."""
        return metrics.images_right(self.raw)


def variant(config: RunConfig) -> str:
    """Return a description of how a run was trained: its method, and each setting that differs from the recipe.

    >>> variant(RunConfig(dataset="cifar10", method="dcil", dense_every=4))
    'dcil, dense_every 4'
    """
    config = config.resolve()
    kept = ["dataset", "model", "method", "sparsity", "epochs", *CARRIED_OUT]
    if DATASETS[config.dataset].is_folder:
        kept += ["batch_size", "image_size"]  # set by the data; lr follows
    if config.dataset == "digits":
        kept += ["batch_size"]  # set by the smoke preset
    usual = RunConfig(**{name: getattr(config, name) for name in kept}).resolve().as_dict()
    words = [config.method]
    for name, value in config.as_dict().items():
        if value != usual[name]:
            words.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(words)


def _part(kind: type[Part], values: Mapping[str, Any]) -> Part:
    """Return a part of a record as its type; keys that the type does not have are ignored."""
    names = [known.name for known in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: values[name] for name in names if name in values})


def _top1(by_pass: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {name: accuracies["top1"] for name, accuracies in by_pass.items()}


def _epoch(row: Mapping[str, Any]) -> Epoch:
    accuracies = {name: _top1(row[name]) for name in ("train", "test", "reestimated") if name in row}
    return _part(Epoch, {**row, **accuracies})


def _end(end: Mapping[str, Any]) -> End:
    best = end["best_at_target"] or {"top1": NAN, "epoch": None}
    return End(end["last"]["top1"], end["mean_last_ten"]["top1"], best["top1"], best["epoch"])
