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
from dataclasses import replace
from typing import Any

import pandas as pd
from markupsafe import Markup

from dcil.lab.page.rerun_form import redraw
from dcil.lab.runs.frames import MISSING
from dcil.lab.runs.names import label
from dcil.lab.runs.sources import Source
from dcil.lab.templating import render, safe

NOT_RUN = Markup(f"<p><b>{MISSING}</b></p>")  # in the place of a figure or table of nothing
ROWS = 40  # of folded data that a page shows; the CSV holds all


def anchor(run_id: str) -> str:
    """Return a run's id as the id of its row; with a dot, the theme's scripts would take it for a class."""
    return re.sub(r"[^\w-]", "_", run_id)


def short(run_id: str) -> str:
    """Return the hash at the end of a run's id, which alone tells it from all others.

    >>> short("cifar10-resnet20-dcil-s0.9-e16-seed0-4b78f1ef")
    '4b78f1ef'
    """
    return run_id.rpartition("-")[2]


def link(run_id: str) -> Markup:
    """Return a link to a run's row, which opens there; its text is short, and the whole id appears on hover."""
    return render("run_link", run_id=run_id, short=short(run_id), anchor=anchor(run_id))


def command(text: str) -> Markup:
    """Return a command as the theme shows code, with its button to copy it."""
    return render("command", text=text)


def table(data: pd.DataFrame, digits: int = 2, runs: Collection[str] = ()) -> Markup:
    """Return a table as HTML, without an index, with nothing random in its markup; ids among `runs` are links."""
    number = f"{{:.{digits}f}}".format

    def cell(value: Any) -> str:
        return link(value) if value in runs else number(value) if isinstance(value, float) else safe(value)

    words = [name for name in data if not pd.api.types.is_numeric_dtype(data[name])]
    html = data.rename(columns=safe).to_html(
        index=False, border=0, escape=False, float_format=number, formatters={safe(name): cell for name in words}
    )
    return Markup(html)


def decimals(values: pd.Series) -> int:
    """Return how many decimals a column of numbers is shown with: none if all are whole, two from ten on, else up to 4.

    >>> decimals(pd.Series([85.6, 9])), decimals(pd.Series([0.9, 0.95])), decimals(pd.Series([64.0, None]))
    (2, 2, 0)
    """
    measured = values.dropna()
    needed = next((n for n in range(4) if (measured == measured.round(n)).all()), 4)
    return 2 if needed and measured.abs().max() >= 10 else needed


def drawn(data: pd.DataFrame) -> pd.DataFrame:
    """Return what a figure draws as people read it: methods by their labels, numbers with the decimals they need.

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
            shown[name] = ["" if pd.isna(value) else f"{value:.{digits}f}" for value in values]
    return shown


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


def download(data: pd.DataFrame, name: str) -> Markup:
    """Return a link that saves a table as a CSV file; the file is in the link, so that it works from a disk too."""
    text = data.map(harmless).rename(columns=harmless).to_csv(index=False, float_format="%.6g")
    return render("download", name=name, content=base64.b64encode(text.encode()).decode())


def _json(spec: dict[str, Any]) -> Markup:
    """Return JSON as the content of a script, which "</" would end early."""
    content = json.dumps(spec, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(content.replace("</", "<\\/"))


def footer(
    source: Source, place: str, data: pd.DataFrame, shown: bool = False, twin: dict[str, Any] | None = None
) -> Markup:
    """Return the block under a figure or table as HTML.

    `place` is where it stands, "CHAPTER#NAME": the command runs the chapter with its parameters, and the CSV file has
    both names.
    `shown` says that `data` is the table above. `twin` is what plotly draws (`dcil.lab.page.twins`).
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
    """Return one line that opens and lists what has no run so far; nothing where nothing is missing.

    `more` says that others of its kind stand above it.

    >>> print(planned(["RigL"]))
    <details class="planned"><summary>1 variant is planned</summary><p>RigL</p></details>
    """
    return render("planned", names=list(names), what=what, more=more) if names else Markup()


def split_by_run(data: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows without a cell "not run", and what names each other row: its cells before the first of those.

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
    """Return a table as the book shows it, with the source of its numbers and a CSV file under it.

    `place` is "CHAPTER#NAME", see `footer`; an empty table is shown as "not run". `waiting` names the rows that have no
    run so far; a row with a cell "not run" joins them. `common` names columns that are left out where all rows say the
    same: the line under the table says it once, and the CSV file has them.
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
