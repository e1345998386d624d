"""The block under each figure and table that says where its numbers come from.

The block holds the runs, each a link to its row on the page "All runs"; commit, machine and versions; the command that
draws the figure again; the data, as a folded table and as a CSV file; and the interactive twin, if there is one. It is
plain HTML: it works from disk and without scripts, and is the same from run to run on one commit.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from markupsafe import Markup

from dcil.lab.page.rerun_form import redraw
from dcil.lab.runs.frames import MISSING
from dcil.lab.runs.names import label
from dcil.lab.runs.sources import Source
from dcil.lab.templating import render, safe

NOT_RUN = Markup(f"<p><b>{MISSING}</b></p>")  # in place of a figure or table without data
ROWS = 40  # rows of the folded data that a page shows; the CSV file holds all


def anchor(run_id: str) -> str:
    """Return the HTML id of a run's row: the run id without dots, which the theme's scripts take for CSS classes."""
    return re.sub(r"[^\w-]", "_", run_id)


def short(run_id: str) -> str:
    """Return the hash at the end of a run id, which alone identifies the run.

    >>> short("cifar10-resnet20-dcil-s0.9-e16-seed0-4b78f1ef")
    '4b78f1ef'
    """
    return run_id.rpartition("-")[2]


def link(run_id: str) -> Markup:
    """Return a link that opens a run's row on the page "All runs"; its text is the hash, its tooltip the run id."""
    return render("run_link", run_id=run_id, short=short(run_id), anchor=anchor(run_id))


def command(text: str) -> Markup:
    """Return a command as HTML, styled like the theme's code blocks, with a copy button."""
    return render("command", text=text)


def table(data: pd.DataFrame, digits: int = 2, runs: Collection[str] = ()) -> Markup:
    """Return a table as HTML without an index, the same from run to run; run ids that are in `runs` become links.

    A missing number is an empty cell, and none is written -0.00.
    """

    def number(value: float) -> str:
        return "" if pd.isna(value) else f"{value:z.{digits}f}"

    def cell(value: Any) -> str:
        return link(value) if value in runs else number(value) if isinstance(value, float) else safe(value)

    words = [name for name in data if not pd.api.types.is_numeric_dtype(data[name])]
    formatters = {safe(name): cell for name in words}
    html = data.rename(columns=safe).to_html(
        index=False, border=0, escape=False, na_rep="", float_format=number, formatters=formatters
    )
    return Markup(html)


def decimals(values: pd.Series) -> int:
    """Return the decimals to show of a column: 0 if all numbers are whole, 2 if any is 10 or more, else up to 4.

    >>> decimals(pd.Series([85.6, 9])), decimals(pd.Series([0.9, 0.95])), decimals(pd.Series([64.0, None]))
    (2, 2, 0)
    """
    measured = values.dropna()
    needed = next((n for n in range(4) if (measured == measured.round(n)).all()), 4)
    return 2 if needed and measured.abs().max() >= 10 else needed


def drawn(data: pd.DataFrame) -> pd.DataFrame:
    """Return a figure's data formatted for people: methods as labels, numbers with the decimals they need.

    >>> print(drawn(pd.DataFrame({"method": ["dcil", "st3_stepwise"], "test": [85.6328, 9.0], "share": [0.9, 2 / 3]})))
      method   test   share
    0   DCIL  85.63  0.9000
    1   ST-3   9.00  0.6667
    """
    shown = data.copy()
    for name, values in data.items():
        if name in ("method", "variant"):
            shown[name] = [label(value) if isinstance(value, str) else value for value in values]
        elif pd.api.types.is_float_dtype(values):
            digits = decimals(values)
            shown[name] = ["" if pd.isna(value) else f"{value:z.{digits}f}" for value in values]
    return shown


# Text that a spreadsheet may take for a formula, and numbers that merely begin like one: "-0.12 (-0.30 to +0.06)".
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
FORMULA, FIGURES = re.compile(r"[=+@\-\t\r]"), re.compile(rf"{_NUMBER}(?:(?: to | ± | \(){_NUMBER}\)?)*")


def harmless(cell: Any) -> Any:
    """Return a cell for a CSV file; text that a spreadsheet would run as a formula is prefixed with an apostrophe.

    >>> harmless("=1+2"), harmless("+0.52 to +1.20"), harmless(-0.5)
    ("'=1+2", '+0.52 to +1.20', -0.5)
    """
    runs = isinstance(cell, str) and FORMULA.match(cell) and not FIGURES.fullmatch(cell)
    return f"'{cell}" if runs else cell


def download(data: pd.DataFrame, name: str) -> Markup:
    """Return a link that saves a table as a CSV file; the link contains the file, so that it also works from disk."""
    text = data.map(harmless).rename(columns=harmless).to_csv(index=False, float_format="%.6g")
    return render("download", name=name, content=base64.b64encode(text.encode()).decode())


def _json(spec: dict[str, Any]) -> Markup:
    """Return JSON for a script element, with "</" escaped, which would end the element early."""
    content = json.dumps(spec, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(content.replace("</", "<\\/"))


def footer(
    source: Source, place: str, data: pd.DataFrame, shown: bool = False, twin: dict[str, Any] | None = None
) -> Markup:
    """Return the block under a figure or table as HTML.

    `place` is where it stands, "CHAPTER#NAME": the command in the block runs that chapter with its current parameters,
    and the CSV file is named after both. `shown` says that `data` is the table above, and is not to be repeated.
    `twin` is what plotly draws (`dcil.lab.page.twins`).
    """
    chapter, _, name = place.partition("#")
    return render(
        "provenance",
        source=source,
        runs=[link(run) for run in source.runs],
        command=command(redraw(chapter)),
        table="" if shown else table(drawn(data.head(ROWS)), runs=source.runs),
        rows=len(data),
        rows_shown=ROWS,
        download=download(data, f"{chapter}-{name.removeprefix('fig-')}"),
        twin=_json(twin) if twin else "",
    )


def planned(names: Sequence[str], what: str = "variant", more: bool = False) -> Markup:
    """Return one line that opens to a list of what has no run so far; empty if nothing is missing.

    `more` says that others of the same kind are shown above it.

    >>> print(planned(["RigL"]))
    <details class="planned"><summary>1 variant is planned</summary><p>RigL</p></details>
    """
    return render("planned", names=list(names), what=what, more=more) if names else Markup()


def split_by_run(data: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows without a cell "not run", and a name for each other row: its cells before the first "not run".

    >>> rows, waiting = split_by_run(pd.DataFrame({"on": ["CPU", "GPU"], "step, s": ["0.2", "not run"]}))
    >>> list(rows["on"]), waiting
    (['CPU'], ['GPU'])
    """
    missing = data.eq(MISSING)
    waiting = missing.any(axis=1)
    names = [", ".join(map(str, row[: list(row).index(MISSING)])) for row in data[waiting].to_numpy(dtype=object)]
    return data[~waiting], list(dict.fromkeys(names))


def show_table(
    data: pd.DataFrame,
    source: Source,
    place: str,
    digits: int = 2,
    waiting: Sequence[str] = (),
    common: Sequence[str] = (),
) -> Any:
    """Return a table as the book shows it, with the source of its numbers and a CSV file below it.

    `place` is "CHAPTER#NAME", see `footer`; an empty table is shown as "not run". `waiting` names further rows, which
    have no run so far; rows with a cell "not run" join them. A column in `common` is left out if its value is the same
    in all rows: the line below the table then says it once. The CSV file has all columns.
    """
    from IPython.display import HTML

    data, without = split_by_run(data)
    nothing = Markup() if waiting or without else NOT_RUN
    same = {name: data[name].iloc[0] for name in common if name in data and data[name].nunique() == 1}
    shown = table(data.drop(columns=list(same)), digits, source.runs) if len(data) else nothing
    more = len(data) > 0
    line = planned(waiting, more=more) + planned(without, "row", more)
    told = replace(source, words="; ".join([source.words, *map(str, same.values())]))
    return HTML(shown + line + footer(told, place, data, shown=True))
