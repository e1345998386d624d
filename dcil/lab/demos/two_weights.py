"""STE and DCIL on two weights of which one is kept: the smallest problem on which the two gradients differ.

The loss is L(v) = ½‖v − v*‖². A step evaluates it in one pass (STE) or two (DCIL), on the weights as the gradient rules
show them, and moves the weights by the gradient that the rules let through. STE's pass sees a pruned weight as zero, so
its gradient is −v*, whatever its value; DCIL's dense pass sees its value w, so its gradient is w − v*.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch

from dcil import methods
from dcil.lab.page import provenance
from dcil.lab.page.figures import COLOURS
from dcil.lab.runs import sources
from dcil.lab.runs.names import LABELS
from dcil.lab.templating import render
from dcil.masks import compute_masks
from dcil.rules import RULES

METHODS = ("ste", "dcil")
BEST, START = (1.0, 0.6), (0.2, 0.5)  # the better weight begins small, so a mask that never changes would miss it
STEPS = 60
RATES, PERIODS = (0.025, 0.05, 0.1, 0.15), (1, 2, 4, 8)
FIRST = {"step": 36, "rate": 2, "period": 2}  # the initial view: a step, an index into RATES, an index into PERIODS
ONE_OF_TWO = 0.4  # any sparsity below a half removes one weight of two: see `dcil.masks.threshold_mask`


def descend(method: str, rate: float, period: int, steps: int = STEPS) -> pd.DataFrame:
    """Return how the two weights move under a method, in float64; a row is the state after `step` steps.

    Columns: step; weight_1, weight_2; kept and pruned, each the number of a weight; value of the pruned weight;
    seen_1, seen_2, the values in the pass that the pruned weight's gradient comes from; part, the pruned weight's value
    in that pass; told, its gradient; loss of the sparse network; exchanges so far.
    """
    w = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    best = torch.tensor(BEST, dtype=torch.float64)
    rules = [RULES[name].apply for name in methods.get(method).rules]
    rows: list[dict[str, Any]] = []
    kept, exchanges = -1, 0
    for step in range(steps + 1):
        if step % period == 0:
            before, mask = kept, compute_masks({"w": w}, sparsity=ONE_OF_TWO)["w"]
            kept = int(mask.nonzero())
            exchanges += before not in (-1, kept)
        passes = [rule(w, mask) for rule in rules]
        losses = [0.5 * (values - best).square().sum() for values in passes]
        (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), w)
        pruned, seen = 1 - kept, passes[-1]
        rows.append(
            {
                "step": step,
                "weight_1": w[0].item(),
                "weight_2": w[1].item(),
                "kept": kept + 1,
                "pruned": pruned + 1,
                "value": w[pruned].item(),
                "seen_1": seen[0].item(),
                "seen_2": seen[1].item(),
                "part": seen[pruned].item(),
                "told": gradient[pruned].item(),
                "loss": losses[0].item(),
                "exchanges": exchanges,
            }
        )
        w.data -= rate * gradient
    return pd.DataFrame(rows)


def columns(path: pd.DataFrame) -> dict[str, list[float]]:
    """Return the columns of `descend` as the page holds them: to three decimals, without negative zeros."""
    return {name: [round(value, 3) + 0 for value in path[name].tolist()] for name in path if name != "step"}


def grid() -> dict[str, list[list[dict[str, list[float]]]]]:
    """Return the columns of `descend` for every setting, by method, index of the rate and index of the period."""
    return {
        method: [[columns(descend(method, rate, period)) for period in PERIODS] for rate in RATES] for method in METHODS
    }


def two_weights_html(place: str) -> str:
    """Return the demonstration with all its settings; `place` is as in `dcil.lab.page.provenance.footer`."""
    runs = grid()
    every = [run for settings in runs.values() for row in settings for run in row]
    largest = max(value for run in every for value in run["weight_1"] + run["weight_2"])
    shown = render(
        "two_weights",
        runs=runs,
        at=FIRST,
        first={method: settings[FIRST["rate"]][FIRST["period"]] for method, settings in runs.items()},
        rates=RATES,
        periods=PERIODS,
        steps=STEPS,
        best=BEST,
        labels=LABELS,
        colours=COLOURS,
        edge=math.ceil(2 * largest) / 2,
        top=max(max(run["loss"]) for run in every),
    )
    rate, period = RATES[FIRST["rate"]], PERIODS[FIRST["period"]]
    paths = pd.concat([descend(method, rate, period).assign(method=LABELS[method]) for method in METHODS])
    source = sources.exact(f"two weights, quadratic loss, float64; data of learning rate {rate:g}, period {period}")
    return shown + provenance.footer(source, place, paths)
