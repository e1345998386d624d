"""Which runs are compared: complete, carried out alike, and as many seeds as were to be looked at.

Who may look after each new seed finds a difference where there is none. So how often anybody looks is fixed
beforehand: at `SEEDS`, and at the other `LOOKS`. Seeds beyond the last look that a setting has reached wait for the
next one, on every page and in every claim; only the page of all runs and those of costs show them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dcil import methods, records
from dcil.lab import checkout
from dcil.run_record import Run

SEEDS = 3  # paired seeds below which nothing is concluded
LOOKS = (SEEDS, 8)  # numbers of seeds at which a setting is looked at

#: How those runs of a tier are carried out that are compared with each other, one for each seed. Runs of another device
#: or precision stand on the pages of all runs and of costs, until enough seeds there show that they end alike.
#: Meanwhile `python -m dcil claims --precision float32` judges float32 runs among themselves.
COMPARED: dict[str, dict[str, Any]] = {
    "smoke": {},
    "quick": {"device": "cpu", "precision": "bf16", "channels_last": True, "sync_batchnorm": False},
    "paper": {"device": "cuda", "precision": "bf16", "channels_last": True, "sync_batchnorm": False},
}


def is_compared(run: Run, tier: str, asked: Mapping[str, Any], precision: str | None = None) -> bool:
    """Return whether a run of a tier is complete, carried out as `COMPARED` says, and has the settings asked for.

    A run that prunes nothing has any sparsity. `precision` replaces the one that is compared.
    """
    wanted = COMPARED[tier] | ({"precision": precision} if precision else {}) | dict(asked)
    if not methods.get(run.config.method).prunes:
        wanted.pop("sparsity", None)
    has = run.config.as_dict()
    return run.tier == tier and run.complete and all(has.get(name) == value for name, value in wanted.items())


def reached(seeds: int) -> int:
    """Return at how many of so many seeds one may look: the last of `LOOKS` that they reach, before the first all.

    >>> [reached(seeds) for seeds in (2, 3, 7, 8, 9)]
    [2, 3, 3, 8, 8]
    """
    return max((look for look in LOOKS if look <= seeds), default=seeds)


def looked_at(runs: Iterable[Run]) -> list[Run]:
    """Return the runs without those that wait: of runs alike but for the seed, the first seeds up to a look."""
    cells: dict[str, list[Run]] = {}
    for run in runs:
        setting = run.config.as_dict() | {"seed": None}
        cells.setdefault(json.dumps(setting, sort_keys=True), []).append(run)
    by_seed = (sorted(cell, key=lambda run: run.config.seed) for cell in cells.values())
    return [run for cell in by_seed for run in cell[: reached(len(cell))]]


def load_compared(tier: str, **asked: Any) -> list[Run]:
    """Return the records of the book that a page compares: of a tier, with a configuration's values as asked for."""
    found = records.load_all(checkout.root() / "records", tier=tier, **(COMPARED[tier] | asked))
    return looked_at(run for run in found if run.complete)
