"""A figure on a page, and what stands in its place where there is nothing to draw."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from IPython import display

from dcil.lab.page import figures
from dcil.lab.runs import sources


@pytest.mark.parametrize("rows", [[], [{"seed": 0, "top1": 90.0}]])
def test_a_figure_without_a_mark_is_not_run(rows, monkeypatch):
    """Without a row of data the page says so, where empty axes from -0.04 to 0.04 would look like a result."""
    blocks, drawn = [], []
    monkeypatch.setattr(display, "display", lambda block: blocks.append(block.data))
    monkeypatch.setattr(plt, "show", lambda: drawn.append(plt.gcf()))
    figure, _ = plt.subplots()
    data = pd.DataFrame(rows, columns=["seed", "top1"])
    figures.show_figure(figure, sources.recorded([]), "01-x#fig-x", data, twin={"data": []})
    assert len(drawn) == len(rows) and ("<b>not run</b>" in blocks[0]) == (not rows)
    assert ("interactive" in blocks[-1]) == bool(rows) and "no records: not run" in blocks[-1]
    plt.close(figure)
