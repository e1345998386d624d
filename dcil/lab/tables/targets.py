"""What the book holds its benchmarks to: `benchmarks/targets.yaml`, and whether a measured value meets it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from dcil.lab.yaml_loaders import UniqueKeys

KINDS = ("cpu", "cuda")


@dataclass(frozen=True)
class Target:
    """A bound on one value of the results on one kind of machine; `place` identifies the row, `column` the value."""

    kind: str
    benchmark: str
    case: str
    baseline: str
    model: str
    batch_size: int
    target: str  # what it is, in words
    column: str = "ratio"
    at_least: float = -math.inf
    at_most: float = math.inf

    @property
    def place(self) -> dict[str, str | int]:
        """The column values that identify the row among those of the target's kind of machine."""
        return {
            "name": self.benchmark,
            "case": self.case,
            "baseline": self.baseline,
            "model": self.model,
            "batch_size": self.batch_size,
        }

    def bound(self) -> str:
        """Return the bound in words, such as "≤ 2.05"."""
        return f"≤ {self.at_most}" if math.isfinite(self.at_most) else f"≥ {self.at_least}"

    def met(self, value: float | None) -> str:
        """Return "yes" or "no" for a measured value, "" for None."""
        if value is None:
            return ""
        return "yes" if self.at_least <= value <= self.at_most else "no"


def read_targets(path: str | Path) -> list[Target]:
    """Return the targets of a file, those for CPUs first; all have the same network and batch size."""
    asked = yaml.load(Path(path).read_text(encoding="utf-8"), UniqueKeys)
    common = {"model": asked["model"], "batch_size": asked["batch_size"]}
    return [Target(kind=kind, **common, **target) for kind in KINDS for target in asked[kind]]
