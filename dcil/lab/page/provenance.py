"""Where the numbers of a figure or table come from, and the block under it that says so.

The block holds the runs, each a link to its row of the page "All runs", commit, machine, versions, the command that
draws it again, the data as a folded table and as a CSV file, and where there is one the interactive twin. It is plain
HTML: it works from a disk and without scripts, and is the same from run to run on one commit.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Sequence
from html import escape
from typing import Any

import pandas as pd

from dcil.lab.page.rerun_form import redraw
from dcil.lab.runs.sources import Source

ROWS = 40  # of folded data that a page shows; the CSV holds all


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
    return data.rename(columns=escape).to_html(
        index=False, border=0, escape=False, float_format=number, formatters={escape(name): cell for name in words}
    )


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
    return _fold(
        "interactive",
        '<div class="twin" role="group"><p>The interactive figure is drawn here in the book\'s '
        f'site, with JavaScript.</p><script type="application/json">{content}</script></div>',
        "interactive",
    )


def footer(
    source: Source, place: str, data: pd.DataFrame, shown: bool = False, twin: dict[str, Any] | None = None
) -> str:
    """Return the block under a figure or table as HTML.

    `place` is where it stands, "CHAPTER#NAME": the command runs the chapter with its parameters, and the CSV file has
    both names.
    `shown` says that `data` is the table above. `twin` is what plotly draws (`dcil.lab.page.twins`).
    """
    chapter, _, name = place.partition("#")
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in source.facts)
    runs = f"<dt>runs</dt><dd>{' '.join(link(run) for run in source.runs)}</dd>" if source.runs else ""
    again = f"<dt>draw again</dt><dd>{command(redraw(chapter))}</dd>"
    parts = [
        _fold(escape(source.words), f"<dl>{runs}{facts}{again}</dl>", "source"),
        "" if shown else _data(data, source.runs),
        download(data, f"{chapter}-{name.removeprefix('fig-')}"),
        _twin(twin) if twin else "",
    ]
    return f'<div class="provenance">{"".join(parts)}</div>'


def planned(names: Sequence[str], what: str = "variant") -> str:
    """Return one line that opens and lists what has no run so far; "" where nothing is missing.

    >>> planned(["RigL"])
    '<details class="planned"><summary>1 more variant is planned</summary><p>RigL</p></details>'
    """
    if not names:
        return ""
    many = len(names) > 1
    title = f"{len(names)} more {what}{'s are' if many else ' is'} planned"
    return _fold(title, f"<p>{escape('; '.join(names))}</p>", "planned")


def show_table(data: pd.DataFrame, source: Source, place: str, digits: int = 2, waiting: Sequence[str] = ()) -> Any:
    """Return a table as the book shows it, with the source of its numbers and a CSV file under it.

    `place` is "CHAPTER#NAME", see `footer`; an empty table is shown as "not run". `waiting` names the rows that have no
    run so far.
    """
    from IPython.display import HTML

    shown = table(data, digits, source.runs) if len(data) else "<p><b>not run</b></p>"
    return HTML(shown + planned(waiting) + footer(source, place, data, shown=True))
