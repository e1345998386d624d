"""Interactive twins of figures: what plotly draws in the page, as plain data.

The Python package plotly is not imported. The site has one copy of its script, which a page loads when a reader opens a
twin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from dcil.lab.runs.names import label

# The legend is above the plot, clear of the axes; a long one scrolls within a third of the height.
CARD = {"template": None, "paper_bgcolor": "white", "plot_bgcolor": "white", "height": 480, "hovermode": "closest",
        "font": {"color": "#111111"}, "margin": {"l": 60, "r": 15, "t": 15, "b": 50},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "maxheight": 0.33}}  # fmt: skip
GRID = {"gridcolor": "#DDDDDD", "zeroline": False}


def _said(column: str, value: Any) -> str:
    return label(value) if isinstance(value, str) else f"{column} {value:g}"


def line_twin(
    data: pd.DataFrame,
    x: str,
    y: str,
    by: Sequence[str],
    colour: Callable[[tuple], str],
    labels: dict[str, str],
    dash: Callable[[tuple], str] = lambda key: "solid",
    log: bool = False,
) -> dict[str, Any]:
    """Return a plotly figure with one line for each combination of values in the columns `by`.

    Lines that differ only in the column `seed` share an entry of the legend, which shows or hides them together.
    `colour` and `dash` give a line's colour and plotly's dash from its values of `by`; `labels` are the axes' titles of
    `x` and `y`. Points with a NaN `y` are left out, and on a logarithmic axis also those that are not positive.
    """
    drawn, grouped = [], set()
    for key, part in data.groupby(list(by), sort=False):
        part = part[part[y].notna() & ((part[y] > 0) | (not log))]
        if not len(part):
            continue
        said = {column: _said(column, value) for column, value in zip(by, key, strict=True)}
        name = ", ".join(said.values())
        group = ", ".join(words for column, words in said.items() if column != "seed")
        drawn.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": group,
                "legendgroup": group,
                "showlegend": group not in grouped,
                "hovertemplate": f"{name}<br>%{{x}}, %{{y}}<extra></extra>",
                "x": [float(f"{value:.6g}") for value in part[x]],
                "y": [float(f"{value:.6g}") for value in part[y]],
                "line": {"color": colour(key), "dash": dash(key), "width": 1.5},
                "marker": {"size": 5},
            }
        )
        grouped.add(group)
    axis = {"title": {"text": labels[y]}, **GRID} | ({"type": "log"} if log else {})
    return {"data": drawn, "layout": CARD | {"xaxis": {"title": {"text": labels[x]}, **GRID}, "yaxis": axis}}
