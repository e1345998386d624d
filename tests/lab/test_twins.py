"""What plotly is given to draw."""

import json
import math

import pandas as pd

from dcil.lab.page import twins

DATA = pd.DataFrame({"epoch": [1, 2, 1, 2], "flips": [4.0, 0.0, 2.0, math.nan], "variant": ["a", "a", "b", "b"],
                     "seed": 0})  # fmt: skip
LABELS = {"epoch": "epoch", "flips": "flips, %"}


def test_a_line_for_each_combination():
    """A line is labelled, coloured and dashed by its values; what was not measured is left out."""
    spec = twins.line_twin(
        DATA,
        "epoch",
        "flips",
        ["variant", "seed"],
        lambda key: {"a": "red", "b": "blue"}[key[0]],
        LABELS,
        dash=lambda key: "dot" if key[0] == "b" else "solid",
    )
    told = [t["hovertemplate"].partition("<br>")[0] for t in spec["data"]]
    assert told == ["a, seed 0", "b, seed 0"]
    assert [(t["name"], t["y"], t["line"]["color"], t["line"]["dash"]) for t in spec["data"]] == [
        ("a", [4.0, 0.0], "red", "solid"),
        ("b", [2.0], "blue", "dot"),
    ]
    assert spec["layout"]["yaxis"]["title"]["text"] == "flips, %"
    json.loads(json.dumps(spec, allow_nan=False))


def test_seeds_share_an_entry_of_the_legend():
    """A method has one entry, by its name for people, whatever its number of seeds."""
    data = DATA.assign(variant="st3_stepwise", seed=[0, 0, 1, 1], flips=1.0)
    spec = twins.line_twin(data, "epoch", "flips", ["variant", "seed"], lambda key: "red", LABELS)
    assert [(t["name"], t["legendgroup"], t["showlegend"]) for t in spec["data"]] == [
        ("ST-3", "ST-3", True),
        ("ST-3", "ST-3", False),
    ]


def test_a_logarithmic_axis_has_no_zero():
    """Zeros are left out there, and a line without a point is not drawn."""
    data = DATA.assign(flips=[4.0, 0.0, 0.0, 0.0])
    spec = twins.line_twin(data, "epoch", "flips", ["variant"], lambda key: "red", LABELS, log=True)
    assert [t["y"] for t in spec["data"]] == [[4.0]] and spec["layout"]["yaxis"]["type"] == "log"
    assert twins.line_twin(DATA[:0], "epoch", "flips", ["variant"], lambda key: "red", LABELS)["data"] == []
