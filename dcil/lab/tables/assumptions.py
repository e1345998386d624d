"""What the paper leaves open: book/assumptions.yml as a table, with defaults from the code and effects from records."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dcil.config import RunConfig
from dcil.lab.runs.names import label
from dcil.lab.runs.paired import differences, signed_interval, t_interval
from dcil.lab.yaml_files import Entry, Setting, Variant, Words, read_entries

EFFECT = "DCIL minus the other choice, points"


class Assumption(Entry):
    """A question, the authors' answer and ours; the head of book/assumptions.yml explains the other fields."""

    question: Words
    authors: Words
    ours: Words
    fields: list[Setting]
    variant: Variant | None


def read_assumptions(path: str | Path) -> list[Assumption]:
    """Return the entries of a file; raises `DcilError` naming an entry with other keys or an unknown setting."""
    return read_entries(path, Assumption)


def settings_in_words(names: list[str], config: RunConfig) -> str:
    """Return in words settings and their values in a configuration."""
    return ", ".join(f"{name} = {getattr(config, name)}" for name in names)


def assumptions_table(entries: list[Assumption], runs: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
    """Return one row for each question: the authors' answer, ours, our setting in `config`, and the effect of another.

    The effect is DCIL minus the entry's variant at equal seeds, in points; "" if the variant has not run. If none has,
    the column is left out. `runs` is a `runs_table`.
    """
    full, rows = config.resolve(), []
    for entry in entries:
        rows.append(
            {
                "question": entry.question,
                "the authors' code": entry.authors,
                "this book": entry.ours,
                "our setting": settings_in_words(entry.fields, full),
                EFFECT: _effect(entry.variant, runs),
            }
        )
    table = pd.DataFrame(rows)
    return table if table[EFFECT].any() else table.drop(columns=EFFECT)


def _effect(variant: str | None, runs: pd.DataFrame) -> str:
    gaps = differences(runs, "dcil", variant) if variant else []
    if not variant or not len(gaps):
        return ""
    return f"{label(variant)}: {signed_interval(*t_interval(gaps))}, n = {len(gaps)}"
