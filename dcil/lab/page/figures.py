"""One figure style for the whole book; every figure is shown with its data and the source of its numbers."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dcil.lab.page.provenance import NOT_RUN, footer
from dcil.lab.runs.names import label
from dcil.lab.runs.sources import Source

__all__ = ["colour", "label", "legend_below", "show_figure", "style"]

# Okabe and Ito's colourblind-safe palette, extended; a method keeps its colour and marker throughout the book.
COLOURS = {"dense": "#000000", "static": "#999999", "ste": "#D55E00", "dcil": "#0072B2", "gmp": "#E69F00",
           "rigl": "#009E73", "set": "#56B4E9", "st3": "#CC79A7", "kept_only": "#4D4D4D", "ste_tenth": "#F4A582",
           "acdc": "#8C6D31", "one_shot": "#5F5F5F",
           "gmp_stepwise": "#A66B00", "rigl_returning": "#00553E", "st3_stepwise": "#8E3A70", "dcil_soft": "#2B3990",
           "gmp_distill": "#C9B400",
           "random": "#BBBBBB", "random_erk": "#D0D0D0", "ste_split": "#8C2D04", "dcil_no_mutual": "#7BB3D9",
           "dcil_shared_norms": "#5E4FA2", "dcil, dense_every 4": "#00A5B5"}  # fmt: skip
MARKERS = {
    "dense": "s",
    "ste": "v",
    "dcil": "o",
    "gmp": "^",
    "rigl": "D",
    "st3": "P",
    "gmp_stepwise": "<",
    "rigl_returning": "d",
    "st3_stepwise": "X",
    "dcil_soft": "h",
}
# The passes of one method share its colour, here DCIL's; the line tells them apart.
PASS_COLOURS = dict.fromkeys(("sparse", "dense", "pruned"), COLOURS["dcil"])
PASS_LINES = {"sparse": "-", "dense": "--", "pruned": ":"}
# Greys, because these are not methods: what a mask refresh did to a weight (a mark tells the last two apart), and when
# in training a gradient was measured.
SIDE_COLOURS = {"pruned": "#EDEDED", "kept": "#ADADAD", "revived": "#111111", "newly pruned": "#111111"}
STATE_COLOURS = {"at initialisation": "#8C8C8C", "after training": "#222222"}
STATE_LINES = {"at initialisation": "--", "after training": "-"}
WIDTH = 5.0  # inches of a figure; several panels stand one above the other


def colour(name: str) -> str:
    """Return a variant's colour: its own, else its method's, else grey."""
    return COLOURS.get(name, COLOURS.get(name.split(",")[0], "#777777"))


def style() -> None:
    """Set the book's style: SVG on a white card that suits both themes, legible on a phone.

    A phone shows a figure `WIDTH` inches wide at about 340 pixels, where its 12-point text is 11 pixels high.
    """
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg", metadata={"Date": None})
    card = {"figure.facecolor": "white", "savefig.facecolor": "white", "svg.hashsalt": "dcil"}
    sizes = {"font.size": 12, "figure.figsize": (WIDTH, 3.4), "lines.linewidth": 1.6, "lines.markersize": 7}
    text = dict.fromkeys(("axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), 12)
    legend = {"legend.fontsize": 12, "legend.title_fontsize": 12, "legend.frameon": False}
    sns.set_theme("notebook", "whitegrid", rc=card | sizes | text | legend)


def legend_below(figure: Figure, axis: Axes) -> None:
    """Put the legend of an axis below its figure, where it covers no curve, with each label once."""
    handles, labels = axis.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    for own in filter(None, (other.get_legend() for other in figure.axes)):
        own.remove()
    if once:
        figure.legend(once.values(), once, loc="upper center", ncols=2, columnspacing=1, bbox_to_anchor=(0.5, 0.02))


def show_figure(
    figure: Figure, source: Source, place: str, data: pd.DataFrame, twin: dict[str, Any] | None = None
) -> None:
    """Show a figure in the notebook, and below it the source of its numbers: `dcil.lab.page.provenance.footer`.

    `place` is "CHAPTER#NAME", where NAME is the figure's name in the cell's metadata; `data` is what is drawn, one row
    per mark or point. Without data the page says "not run" instead: empty axes would look like a result. An axis of
    epochs has ticks at whole numbers only.
    """
    from IPython.display import HTML, display

    if data.empty:
        plt.close(figure)
        display(HTML(NOT_RUN))
    else:
        for axis in figure.axes:
            if axis.get_xlabel() == "epoch":
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.tight_layout()
        plt.show()
    display(HTML(footer(source, place, data, twin=None if data.empty else twin)))
