"""What the paper leaves open: book/assumptions.yml as a table, with defaults from the code and effects from records."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from dcil.config import RunConfig
from dcil.errors import DcilError, unknown
from dcil.lab.runs.paired import differences, signed_interval, t_interval

FIELDS = ("question", "authors", "ours", "fields", "variant")


def read_assumptions(path: str | Path) -> list[dict[str, Any]]:
    """Return the entries of a file; raises `DcilError` naming one with other keys or an unknown setting."""
    try:
        entries = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DcilError(f"the assumptions {path} cannot be read: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DcilError(f"the assumptions {path} must be a list of mappings")
    known = [f.name for f in dataclasses.fields(RunConfig)]
    for number, entry in enumerate(entries, start=1):
        if set(entry) != set(FIELDS) or not all(entry[k] for k in ("question", "authors", "ours")):
            raise DcilError(f"{path}, entry {number} must have {', '.join(FIELDS)}; it has {', '.join(entry)}")
        for name in entry["fields"]:
            if name not in known:
                raise DcilError(f"{path}, entry {number}: {unknown('setting', name, known)}")
    return entries


def settings_in_words(names: list[str], config: RunConfig) -> str:
    """Return settings with the values that a configuration gives them."""
    return ", ".join(f"{name} = {getattr(config, name)}" for name in names)


def assumptions_table(entries: list[dict[str, Any]], runs: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
    """Return one row for each question: the authors' answer, ours, our setting in `config`, and the measured effect.

    The effect is the accuracy of the variant less DCIL's at equal seeds, in points. `runs` is a `runs_table`.
    """
    full, rows = config.resolve(), []
    for entry in entries:
        effect = "not measured"
        if entry["variant"]:
            gaps = differences(runs, entry["variant"], "dcil")
            seeds = f", n = {len(gaps)}" if len(gaps) else ""
            effect = f"{entry['variant']}: {signed_interval(*t_interval(gaps))}{seeds}"
        rows.append(
            {
                "question": entry["question"],
                "the authors' code": entry["authors"],
                "this book": entry["ours"],
                "our setting": settings_in_words(entry["fields"], full),
                "measured effect, points": effect,
            }
        )
    return pd.DataFrame(rows)
