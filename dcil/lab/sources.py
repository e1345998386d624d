"""Where the numbers of a figure or table come from, and the block under it that says so.

The block holds the runs, each a link to its row of the page "All runs", commit, machine, versions, the command that
draws it again, the data as a folded table and as a CSV file, and where there is one the interactive twin. It is plain
HTML: it works from a disk and without scripts, and is the same from run to run on one commit.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from dcil.lab.chapters import redraw

ROWS = 40  # of folded data that a page shows; the CSV holds all


@dataclass(frozen=True)
class Source:
    """Where numbers come from: a line in words, the ids of recorded runs, and facts by name (commit, machine, ...)."""

    words: str
    runs: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def joined(values: Iterable[Any], between: str = ", ") -> str:
    """Return values in words, each once, in order."""
    return between.join(str(value) for value in sorted(set(values)))


def commit_words(commit: str, dirty: bool) -> str:
    """Return a commit's first seven digits, and whether the code differed from it."""
    return commit[:7] + (" and uncommitted changes" if dirty else "")


def counted(number: int, word: str) -> str:
    """Return "1 run" or "3 runs"."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def recorded(records: Iterable[dict[str, Any]]) -> Source:
    """Return the source of numbers read from run records."""
    records = list(records)
    if not records:
        return Source("no records: not run")
    env = [r["environment"] for r in records]
    seeds, tiers = {r["config"]["seed"] for r in records}, {r["tier"] for r in records}
    return Source(
        f"{counted(len(records), 'recorded run')}, tier {joined(tiers)}, "
        f"{'seeds' if len(seeds) > 1 else 'seed'} {joined(seeds)}",
        tuple(r["run_id"] for r in records),
        (
            ("commit", joined(commit_words(e["commit"], e["dirty"]) for e in env)),
            ("machine", joined((f"{e['device']}, {counted(e['threads'], 'thread')}" for e in env), "; ")),
            ("versions", joined((f"Python {e['python']}, torch {e['torch']}" for e in env), "; ")),
            ("date", " to ".join(sorted({min(e["date"] for e in env), max(e["date"] for e in env)}))),
        ),
    )


def computed(what: str, tier: str, seeds: Iterable[Any], device: Any = "cpu") -> Source:
    """Return the source of numbers that the page itself computed; `what` names the experiment.

    It names commit and machine, so it does not belong into an output that the tests compare: see `exact`.
    """
    import torch

    from dcil.machine import device_name, source_state

    machine = f"{device_name(torch.device(device))}, {counted(torch.get_num_threads(), 'thread')}"
    shown = ", ".join(str(seed) for seed in seeds)
    return Source(f"computed in this page: {what}", (),
                  (("tier and seeds", f"{tier}; {shown}"), ("commit", commit_words(*source_state())),
                   ("machine", machine), ("versions", f"torch {torch.__version__}")))  # fmt: skip


def live(*configs: Any) -> Source:
    """Return the source of runs made in the page itself, from their configurations."""
    full = [config.resolve() for config in configs]
    seeds = dict.fromkeys(config.seed for config in full)
    return computed(", ".join(config.run_id for config in full), full[0].tier, seeds, full[0].device)


def exact(what: str) -> Source:
    """Return the source of numbers that the page computes and that are the same on every machine."""
    checked = "checked", "the tests compute it again, at smoke, and compare"
    return Source(f"computed in this page: {what}", (), (checked,))


def given(what: str) -> Source:
    """Return the source of what others made or what the repository says, in words: files, logs, code."""
    return Source(what)


# --- the block


def anchor(run_id: str) -> str:
    """Return a run's id as the id of its row; with a dot, the theme's scripts would take it for a class."""
    return re.sub(r"[^\w-]", "_", run_id)


def link(run_id: str) -> str:
    """Return a link to a run's row, which opens there."""
    return f'<a href="runs.html#{anchor(run_id)}"><code>{escape(run_id)}</code></a>'


def command(text: str) -> str:
    """Return a command as the theme shows code, with its button to copy it."""
    return f'<div class="highlight"><pre>{escape(text)}</pre></div>'


def table(data: pd.DataFrame, digits: int = 2, runs: Collection[str] = ()) -> str:
    """Return a table as HTML, without an index, with nothing random in its markup; ids among `runs` are links."""
    number = f"{{:.{digits}f}}".format

    def cell(value: Any) -> str:
        return link(value) if value in runs else number(value) if isinstance(value, float) else escape(str(value))

    words = [name for name in data if not pd.api.types.is_numeric_dtype(data[name])]
    return data.rename(columns=escape).to_html(index=False, border=0, escape=False, float_format=number,
                                               formatters={escape(name): cell for name in words})  # fmt: skip


# What a spreadsheet may take for a formula, and the figures that begin like one: "-0.12 (-0.30 to +0.06)".
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
FORMULA, FIGURES = re.compile(r"[=+@\-\t\r]"), re.compile(rf"{_NUMBER}(?:(?: to | ± | \(){_NUMBER}\)?)*")


def harmless(cell: Any) -> Any:
    """Return a cell of a CSV file; text that a spreadsheet would compute gets an apostrophe before it.

    >>> harmless("=1+2"), harmless("+0.52 to +1.20"), harmless(-0.5)
    ("'=1+2", '+0.52 to +1.20', -0.5)
    """
    runs = isinstance(cell, str) and FORMULA.match(cell) and not FIGURES.fullmatch(cell)
    return f"'{cell}" if runs else cell


def download(data: pd.DataFrame, name: str) -> str:
    """Return a link that saves a table as a CSV file; the file is in the link, so that it works from a disk too."""
    text = data.map(harmless).rename(columns=harmless).to_csv(index=False, float_format="%.6g")
    content = base64.b64encode(text.encode()).decode()
    return f'<a class="csv" download="{escape(name)}.csv" href="data:text/csv;base64,{content}">CSV</a>'


def _fold(title: str, inside: str, kind: str) -> str:
    return f'<details class="{kind}"><summary>{title}</summary>{inside}</details>'


def _data(data: pd.DataFrame, runs: Collection[str]) -> str:
    rest = f"<p>The first {ROWS} of {len(data):,} rows; the CSV has all.</p>" if len(data) > ROWS else ""
    return _fold("data", rest + table(data.head(ROWS), 4, runs), "data")


def _twin(spec: dict[str, Any]) -> str:
    # A script of this type is data. "</" would end it early.
    content = json.dumps(spec, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    return _fold("interactive", '<div class="twin" role="group"><p>The interactive figure is drawn here in the book\'s '
                 f'site, with JavaScript.</p><script type="application/json">{content}</script></div>',
                 "interactive")  # fmt: skip


def footer(
    source: Source, place: str, data: pd.DataFrame, shown: bool = False, twin: dict[str, Any] | None = None
) -> str:
    """Return the block under a figure or table as HTML.

    `place` is where it stands, "CHAPTER#NAME": the command runs the chapter with its parameters, and the CSV file has
    both names.
    `shown` says that `data` is the table above. `twin` is what plotly draws (`dcil.lab.twins`).
    """
    chapter, _, name = place.partition("#")
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in source.facts)
    runs = f"<dt>runs</dt><dd>{' '.join(link(run) for run in source.runs)}</dd>" if source.runs else ""
    again = f"<dt>draw again</dt><dd>{command(redraw(chapter))}</dd>"
    parts = [_fold(escape(source.words), f"<dl>{runs}{facts}{again}</dl>", "source"),
             "" if shown else _data(data, source.runs), download(data, f"{chapter}-{name.removeprefix('fig-')}"),
             _twin(twin) if twin else ""]  # fmt: skip
    return f'<div class="provenance">{"".join(parts)}</div>'
