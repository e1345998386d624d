"""All runs as one HTML table: searchable with book/_static/runs-table.js, a plain table without it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from dcil.config import RunConfig
from dcil.data.datasets import DATASETS
from dcil.lab.page import provenance
from dcil.lab.page.figures import PASS_COLOURS, PASS_LINES
from dcil.lab.runs import final_masks, stability
from dcil.lab.runs.names import data_set_label, label, network_label
from dcil.lab.sweep import train_command
from dcil.lab.templating import render
from dcil.run_record import Run

COLUMNS = ("run", "method", "deployed pass, %", "second pass, %", "sparsity, %", "seed", "epochs", "network",
           "data set", "tier", "minutes", "date")  # fmt: skip
FILTERS = {"tier": "tier", "dataset": "data set", "method": "method", "sparsity": "sparsity", "status": "status"}
CALLED = {"dataset": data_set_label, "method": label}  # turns a filter's values into labels, where these differ
WIDTH, HEIGHT, LEFT, LOW = 300, 150, 34, 22  # of a chart in SVG units, and the room for its axes
FRAME = {"width": WIDTH, "height": HEIGHT, "left": LEFT}
POINTS = 100  # per line, roughly; of a longer curve every n-th epoch and the last are drawn
DASHES = {"-": {}, "--": {"stroke-dasharray": "7 4"}, ":": {"stroke-dasharray": "2 3"}}  # SVG for a pass's line style
DASHED = {"stroke": "#666", "stroke-dasharray": "3 3"}  # the line of the sparsity, the only one that is not a pass


def _style(name: str) -> dict[str, str]:
    """Return the SVG attributes of the line of this name."""
    if name == "sparsity":
        return DASHED
    return {"stroke": PASS_COLOURS.get(name, "#CC79A7"), "stroke-width": "2"} | DASHES[PASS_LINES.get(name, "-")]


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    step = -(-len(points) // POINTS)
    return [*points[:-1:step], *points[-1:]]


def chart(title: str, lines: dict[str, Sequence[tuple[int, float]]], epochs: int, top: float) -> str:
    """Return a small SVG line chart over epochs, with values from 0 to `top`; "" if there is no point to draw.

    A line is a list of points (epoch counted from 1, value); NaN means not measured, and is left out.
    """
    measured = {name: [p for p in points if not math.isnan(p[1])] for name, points in lines.items()}
    if not any(measured.values()):
        return ""

    def across(epoch: int) -> float:
        return LEFT + (WIDTH - LEFT - 8) * (epoch - 1) / max(epochs - 1, 1)

    def down(value: float) -> float:
        return 8 + (HEIGHT - LOW - 8) * (1 - value / top)

    drawn = {
        name: " ".join(f"{across(epoch):.1f},{down(value):.1f}" for epoch, value in _thinned(points))
        for name, points in measured.items()
    }
    named = ", ".join(name for name, points in measured.items() if points)
    return render(
        "chart",
        words=f"{title}, over {epochs} epochs, from 0 to {top:g}: {named}",
        title=title,
        values=[(down(value), f"{value:g}") for value in (0, top / 2, top)],
        epochs=[(across(epoch), epoch) for epoch in sorted({1, epochs})],
        lines=[(name, _style(name), points) for name, points in drawn.items()],
        **FRAME,
    )


def charts(run: Run) -> str:
    """Return a run's charts: accuracy and sparsity, exchanges and mask overlap by epoch, and sparsity by layer."""
    epochs = len(run.curve)
    if not epochs:
        return ""
    lines: dict[str, Sequence[tuple[int, float]]] = {
        "sparsity": [(done, 100 * epoch.sparsity) for done, epoch in enumerate(run.curve, start=1)]
    }
    for name in run.by_pass:
        lines[name] = [(done, epoch.test[name]) for done, epoch in enumerate(run.curve, start=1)]
    shares = list(enumerate(stability.exchange_rates(run), start=1)) if run.config.sparsity else []
    highest = float(f"{1.05 * max((v for _, v in shares if not math.isnan(v)), default=0) or 1:.2g}")
    overlaps = [(epoch + 1, overlap) for epoch, overlap in run.overlap_with_last.items()]
    parts = [
        chart("test top-1 of each pass, and sparsity, %", lines, epochs, 100),
        chart("kept weights exchanged at a choice of masks, %", {"sparse": shares}, epochs, highest),
        chart("overlap of the mask with the last one (Jaccard)", {"sparse": overlaps}, epochs, 1),
        bars({k.removesuffix(".weight"): v for k, v in final_masks.layer_sparsity(run).items()}),
    ]
    return render("charts", parts=parts)


def bars(shares: dict[str, float]) -> str:
    """Return a bar chart of the share removed from each layer, in the network's order; "" for a dense run."""
    if not any(shares.values()):
        return ""
    return render(
        "bars",
        words="sparsity of each layer, %: " + ", ".join(f"{name} {100 * v:.1f}" for name, v in shares.items()),
        shares=shares,
        wide=(WIDTH - LEFT - 8) / len(shares),
        high=HEIGHT - LOW - 8,
        **FRAME,
    )


def _short(value: Any) -> str:
    """Return a record's value as text of at most 200 characters: records from others may hold anything."""
    return textwrap.shorten(str(value), 200, placeholder=" …")


def rerun_command(config: RunConfig) -> str:
    """Return the command that trains a run of this configuration again."""
    fetched = ["--download"] if DATASETS[config.dataset].fetch else []
    return " ".join(["python -m dcil train", *train_command.shortest_argv(config), *fetched])


def details(run: Run) -> str:
    """Return what a run's row unfolds: command, record, charts, configuration, environment, cost, masks."""
    cost = {k: v for k, v in run["cost"].items() if k not in ("layer_sparsity", "sessions", "nonzeros")}
    found = stability.stability_figures(run) if run.curve else {}
    measured = {name: f"{value:.3g}" for name, value in found.items() if not math.isnan(value)}
    named = {
        "configuration": run["config"],
        "environment": run["environment"],
        "data": run["data"],
        "cost": cost,
        "nonzeros": run.cost.nonzeros,
        "masks and gradients (chapter 4 says what each is)": measured,
    }
    return render(
        "run_details",
        run_id=run.run_id,
        reason=run.get("reason"),
        charts=charts(run),
        address=quote(f"../records/{run.run_id}.json"),
        command=provenance.command(rerun_command(run.config)),
        named={name: {_short(k): _short(v) for k, v in values.items()} for name, values in named.items() if values},
    )


def _kinds(run: Run) -> dict[str, str]:
    """Return the values by which a run can be filtered, by the names of `FILTERS`."""
    return {
        "tier": run.tier,
        "dataset": run.config.dataset,
        "method": run.config.method,
        "sparsity": f"{run.config.sparsity:g}",
        "status": run["status"],
    }


def run_row(run: Run) -> Markup:
    """Return a run's row; its HTML id follows from the run id, so that pages can link to it."""
    config, kinds = run.config, _kinds(run)
    shared = ", shared" if math.isnan(run.cost.own_time_s) else ""
    return render(
        "run",
        run_id=run.run_id,
        short=provenance.short(run.run_id),
        anchor=provenance.anchor(run.run_id),
        status=run["status"],
        details=details(run),
        cells=[
            label(run.variant),
            *[*(f"{end.last:.2f}" for end in run.by_pass.values()), "", ""][:2],
            f"{100 * config.sparsity:g}",
            config.seed,
            config.epochs,
            network_label(config.model),
            data_set_label(config.dataset),
            run.tier,
            f"{run.cost.time_s / 60:.1f}{shared}",
            run.environment.date,
        ],
        kinds=kinds,
        words=" ".join(
            [run.run_id, run.variant, config.model, run.environment.device, *kinds.values()]
            + [label(run.variant), network_label(config.model), data_set_label(config.dataset)]
        ).lower(),
    )


def all_runs_page(runs: Sequence[Run]) -> str:
    """Return the whole table with its filters, and the script that drives them."""
    kinds = [_kinds(run) for run in runs]
    return render(
        "runs",
        filters=[
            (name, title, [(value, CALLED.get(name, str)(value)) for value in sorted({kind[name] for kind in kinds})])
            for name, title in FILTERS.items()
        ],
        columns=COLUMNS,
        rows=map(run_row, runs),
    )
