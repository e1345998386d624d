"""The options that make `python -m dcil train` run a configuration: every field, or the fewest that suffice."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from dcil.config import PRESETS, RunConfig, preset


def argv_of(values: dict[str, Any]) -> list[str]:
    """Return the options of `train` that set fields of `RunConfig` to these values; `None` is left out."""
    words: list[str] = []
    for field, value in values.items():
        name = field.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, tuple):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words += [f"--{name}", str(value)]
    return words


def argv_of_config(config: RunConfig) -> list[str]:
    """Return the options that make `train` run this configuration, with every field spelled out."""
    return argv_of({field.name: getattr(config, field.name) for field in fields(RunConfig)})


def shortest_argv(config: RunConfig) -> list[str]:
    """Return the fewest options that make `train` run this configuration: a preset, and what differs from it."""
    wanted, choices = config.resolve(), []
    for name in PRESETS:
        # Never left out: what a reader looks for, and what would otherwise adapt to the reader's machine.
        fitted = ("device", "precision") if "precision" in PRESETS[name] else ("device",)
        given = {k: getattr(wanted, k) for k in ("method", "sparsity", "seed", *fitted)}
        for derived in (False, True):  # second round: fields that a preset leaves to `resolve`
            start = preset(name, **given)
            base = start.resolve()
            given |= {
                f.name: getattr(wanted, f.name)
                for f in fields(RunConfig)
                if (derived or getattr(start, f.name) is not None) and getattr(base, f.name) != getattr(wanted, f.name)
            }
        choices.append(["--preset", name, *argv_of(given)])
    return min(choices, key=len)
