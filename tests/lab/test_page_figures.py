"""A figure on a page, and what stands in its place where there is nothing to draw."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from IPython import display

from dcil.lab.page import figures
from dcil.lab.runs import sources


@pytest.mark.parametrize("rows", [[], [{"seed": 0, "top1": 90.0}]])
def test_a_figure_without_a_mark_is_not_run(rows, monkeypatch):
    """Without a row of data the page says so, since empty axes from -0.04 to 0.04 would look like a result."""
    blocks, drawn = [], []
    monkeypatch.setattr(display, "display", lambda block: blocks.append(block.data))
    monkeypatch.setattr(plt, "show", lambda: drawn.append(plt.gcf()))
    figure, _ = plt.subplots()
    data = pd.DataFrame(rows, columns=["seed", "top1"])
    figures.show_figure(figure, sources.recorded([]), "01-x#fig-x", data, twin={"data": []})
    assert len(drawn) == len(rows) and ("<b>not run</b>" in blocks[0]) == (not rows)
    assert ("interactive" in blocks[-1]) == bool(rows) and "no records: not run" in blocks[-1]
    plt.close(figure)


def test_epochs_are_whole_numbers(monkeypatch):
    """Matplotlib alone would write 1.5 and 2.5 under a few epochs."""
    monkeypatch.setattr(plt, "show", lambda: None)
    with plt.rc_context():
        plt.rcdefaults()  # larger letters, as of `figures.style`, leave room for fewer ticks
        figure, axis = plt.subplots(figsize=(figures.WIDTH, 3.4))
        axis.plot(range(1, 6), range(1, 6))
        axis.set(xlabel="epoch")
        assert any(tick % 1 for tick in axis.get_xticks())
        figures.show_figure(figure, sources.recorded([]), "01-x#fig-x", pd.DataFrame({"epoch": [1]}))
        assert not any(tick % 1 for tick in axis.get_xticks())
    plt.close(figure)


def test_a_legend_below_covers_no_curve():
    """It replaces those of the axes, names each label once, and lies below the lowest axis."""
    figure, axes = plt.subplots(2, 1, figsize=(figures.WIDTH, 6))
    for axis in axes:
        for label in ("DCIL", "DCIL", "STE"):
            axis.plot([0, 1], label=label)
        axis.legend()
    figures.legend_below(figure, axes[0])
    (legend,) = figure.legends
    figure.tight_layout()
    figure.canvas.draw()
    assert [text.get_text() for text in legend.get_texts()] == ["DCIL", "STE"]
    assert not any(axis.get_legend() for axis in axes)
    assert legend.get_window_extent().y1 < axes[1].get_window_extent().y0
    plt.close(figure)
