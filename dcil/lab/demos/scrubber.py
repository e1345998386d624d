"""A slider through a run's mask refreshes: which weights of one layer are kept, and which changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from dcil.lab.page import provenance
from dcil.lab.page.figures import SIDE_COLOURS
from dcil.lab.runs.sources import Source
from dcil.lab.templating import render

#: What a refresh did to a weight, by its letter in the page.
SIDES = {"p": "pruned", "k": "kept", "r": "revived", "n": "newly pruned"}
MOST = 60  # refreshes that a page holds; of more, it takes so many, evenly spaced, including the first and the last


def sides(before: Tensor, after: Tensor) -> str:
    """Return a letter of `SIDES` for each weight, in the order of the flattened masks (boolean, of one shape).

    >>> import torch
    >>> sides(torch.tensor([False, True, False, True]), torch.tensor([False, True, True, False]))
    'pkrn'
    """
    return "".join(
        "pnrk"[2 * now + was] for was, now in zip(before.flatten().tolist(), after.flatten().tolist(), strict=True)
    )


def evenly_spaced(number: int, most: int = MOST) -> list[int]:
    """Return at most `most` of the indices 0 to `number` − 1, evenly spaced, including the first and the last.

    >>> evenly_spaced(3), evenly_spaced(100, most=4)
    ([0, 1, 2], [0, 33, 66, 99])
    """
    if number <= most:
        return list(range(number))
    return [round(i * (number - 1) / (most - 1)) for i in range(most)]


def frames(refreshes: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each refresh that the page holds.

    A refresh is a dict with `step`, `sparsity` in [0, 1), the counts `revived` and `newly pruned` of the whole network,
    and `corner`: the masks of the weights that are drawn, before and after the refresh, each boolean [filters,
    channels, height, width]. Columns: refresh, counted from 1; step; sparsity in percent; revived; newly pruned; kept,
    the number among the weights drawn; sides.
    """
    taken = [(i + 1, refreshes[i]) for i in evenly_spaced(len(refreshes))]
    return pd.DataFrame(
        [
            {
                "refresh": i,
                "step": r["step"],
                "sparsity": round(100 * r["sparsity"], 1),
                "revived": r["revived"],
                "newly pruned": r["newly pruned"],
                "kept": int(r["corner"][1].sum()),
                "sides": sides(*r["corner"]),
            }
            for i, r in taken
        ]
    )


def places(shape: Sequence[int], gap: float = 0.6) -> list[tuple[float, float]]:
    """Return the (x, y) at which each weight of a shape [filters, channels, height, width] is drawn.

    Filters go downwards, channels to the right.

    >>> places((1, 2, 1, 2))
    [(0.0, 0.0), (1.0, 0.0), (2.6, 0.0), (3.6, 0.0)]
    """
    filters, channels, height, width = shape
    return [
        (round(c * (width + gap) + x, 1), round(f * (height + gap) + y, 1))
        for f in range(filters)
        for c in range(channels)
        for y in range(height)
        for x in range(width)
    ]


def scrubber_html(refreshes: Sequence[dict[str, Any]], source: Source, place: str) -> str:
    """Return the slider for a run's refreshes (see `frames`); `place` is as in `dcil.lab.page.provenance.footer`."""
    rows = frames(refreshes)
    where = places(refreshes[0]["corner"][0].shape)
    shown = render(
        "scrubber",
        frames=rows.to_dict("records"),
        places=where,
        sides=SIDES,
        colours=SIDE_COLOURS,
        first=len(rows) // 2,
    )
    return shown + provenance.footer(source, place, rows.drop(columns="sides"))
