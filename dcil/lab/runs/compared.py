"""Which runs are compared: complete, on the same data, under the same conditions, up to a planned number of seeds.

Looking after every new seed finds differences where there are none. So the numbers of seeds at which results are looked
at are fixed beforehand: `SEEDS` first, then the other `LOOKS`. Seeds beyond the last look that a setting has reached
wait for the next look, on every page and in every claim; only the page of all runs and the pages on costs show them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from dcil import methods, records
from dcil.config import ResolvedConfig
from dcil.data.datasets import DATASETS
from dcil.lab import checkout
from dcil.run_record import Run

SEEDS = 3  # with fewer paired seeds, nothing is concluded
LOOKS = (SEEDS, 8)  # the numbers of seeds at which results are looked at

#: By tier, the conditions under which runs must have been trained to be compared. Runs on another device or in another
#: precision appear only on the page of all runs and the pages on costs, until enough seeds show that they end alike.
#: Meanwhile `python -m dcil claims --precision float32` judges float32 runs among themselves.
COMPARED: dict[str, dict[str, Any]] = {
    "smoke": {},
    "quick": {"device": "cpu", "precision": "bf16", "channels_last": True, "sync_batchnorm": False},
    "paper": {"device": "cuda", "precision": "bf16", "channels_last": True, "sync_batchnorm": False},
}


def is_whole(run: Run) -> bool:
    """Return whether a run is complete, and its data are those that its configuration names, not a caller's own."""
    content = DATASETS[run.config.dataset].content
    return run.complete and (not content or run.data.sha256 == content)


def is_compared(run: Run, tier: str, asked: Mapping[str, Any], precision: str | None = None) -> bool:
    """Return whether a run is of the tier, `is_whole`, trained under the conditions in `COMPARED`, and as `asked` for.

    A run that prunes nothing matches any sparsity. `precision` replaces the one in `COMPARED`.
    """
    wanted = COMPARED[tier] | ({"precision": precision} if precision else {}) | dict(asked)
    if not methods.get(run.config.method).prunes:
        wanted.pop("sparsity", None)
    has = run.config.as_dict()
    return run.tier == tier and is_whole(run) and all(has.get(name) == value for name, value in wanted.items())


def reached(seeds: int) -> int:
    """Return how many of the available seeds may be looked at: the last of `LOOKS` reached; before the first look, all.

    >>> [reached(seeds) for seeds in (2, 3, 7, 8, 9)]
    [2, 3, 3, 8, 8]
    """
    return max((look for look in LOOKS if look <= seeds), default=seeds)


def setting(run: Run) -> ResolvedConfig:
    """Return a run's configuration with seed 0: the runs of one setting differ in the seed only."""
    return replace(run.config, seed=0)


def looked_at(runs: Iterable[Run]) -> list[Run]:
    """Return the runs without those that wait for the next look: of each setting, the first seeds, up to a look."""
    cells: dict[ResolvedConfig, list[Run]] = {}
    for run in runs:
        cells.setdefault(setting(run), []).append(run)
    by_seed = (sorted(cell, key=lambda run: run.config.seed) for cell in cells.values())
    return [run for cell in by_seed for run in cell[: reached(len(cell))]]


def load_compared(tier: str, **asked: Any) -> list[Run]:
    """Return the book's runs that a page compares: those of a tier whose configuration has the values asked for."""
    found = records.load_all(checkout.root() / "records", tier=tier, **(COMPARED[tier] | asked))
    return looked_at(run for run in found if is_whole(run))
