"""What the paper leaves open: book/assumptions.yml as a table, with defaults from the code and effects from records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from dcil.config import RunConfig
from dcil.lab.runs.paired import differences, signed_interval, t_interval
from dcil.lab.yaml_files import Entry, Setting, Variant, Words, read_entries


class Assumption(Entry):
    """A question, the authors' answer and ours; the head of book/assumptions.yml says what the other fields are."""

    question: Words
    authors: Words
    ours: Words
    fields: list[Setting]
    variant: Variant | None


def read_assumptions(path: str | Path) -> list[dict[str, Any]]:
    """Return the entries of a file; raises `DcilError` naming one with other keys or an unknown setting."""
    return read_entries(path, Assumption)


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
