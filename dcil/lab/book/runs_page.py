"""Every run as one table of HTML: searchable with book/_static/runs-table.js, a plain table without it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from dcil import records
from dcil.config import RunConfig
from dcil.lab.page import provenance
from dcil.lab.page.figures import PASS_COLOURS, PASS_LINES
from dcil.lab.runs import stability
from dcil.lab.runs.frames import variant
from dcil.lab.sweep import train_command

COLUMNS = ("run", "variant", "sparsity, %", "seed", "deployed pass, %", "second pass, %", "epochs", "network",
           "data set", "tier", "minutes", "date")  # fmt: skip
FILTERS = {"tier": "tier", "dataset": "data set", "method": "method", "sparsity": "sparsity", "status": "status"}
WIDTH, HEIGHT, LEFT, LOW = 300, 150, 34, 22  # of a chart in SVG units, and the room for its axes
POINTS = 100  # of a line at most; of a longer curve every n-th epoch is drawn, and the last
STYLES = {"sparsity": 'stroke="#666" stroke-dasharray="3 3"'}  # of a line; any other is a pass
DASHES = {"--": ' stroke-dasharray="7 4"', ":": ' stroke-dasharray="2 3"'}  # in SVG, of a pass's line


def _style(name: str) -> str:
    if name in STYLES:
        return STYLES[name]
    return f'stroke="{PASS_COLOURS.get(name, "#CC79A7")}" stroke-width="2"{DASHES.get(PASS_LINES.get(name), "")}'


def _legend(names: Iterable[str]) -> str:
    names = list(names)
    key = '<svg width="18" height="8" aria-hidden="true"><path d="M0 4H18" {}/></svg>'
    return "".join(f" {key.format(_style(name))} {escape(name)}" for name in names) if len(names) > 1 else ""


def chart(title: str, lines: dict[str, Sequence[tuple[int, float]]], epochs: int, top: float, unit: str = "") -> str:
    """Return lines over epochs, from 0 to `top`, as a small SVG picture with axes; "" without a point.

    A line is its points (epoch counted from 1, value); a value that is NaN was not measured and is left out.
    """
    measured = {name: [p for p in points if not math.isnan(p[1])] for name, points in lines.items()}
    if not any(measured.values()):
        return ""

    def place(epoch: float, value: float) -> tuple[float, float]:
        across = (epoch - 1) / max(epochs - 1, 1)
        return LEFT + (WIDTH - LEFT - 8) * across, 8 + (HEIGHT - LOW - 8) * (1 - value / top)

    grid, drawn = [], []
    for value in (0, top / 2, top):
        y = place(1, value)[1]
        grid.append(
            f'<path d="M{LEFT} {y:.0f}H{WIDTH - 8}" stroke="#ddd"/><text x="{LEFT - 4}" y="{y + 3:.0f}" '
            f'text-anchor="end">{value:g}{unit}</text>'
        )
    for epoch in sorted({1, epochs}):
        x = place(epoch, 0)[0]
        grid.append(f'<text x="{x:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{epoch}</text>')
    for name, points in measured.items():
        step = -(-len(points) // POINTS)
        at = " ".join("{:.1f},{:.1f}".format(*place(*p)) for p in [*points[:-1:step], *points[-1:]])
        drawn.append(f'<polyline fill="none" {_style(name)} points="{at}"/>')
    words = f"{title}, over {epochs} epochs, from 0 to {top:g}{unit}: {', '.join(k for k, v in measured.items() if v)}"
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{escape(words)}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><g font-size="10" fill="#444">{"".join(grid)}</g>'
        f"{''.join(drawn)}</svg><figcaption>{escape(title)}{_legend(lines)}</figcaption></figure>"
    )


def charts(record: dict[str, Any]) -> str:
    """Return how a run went: accuracy and sparsity, exchanges of weights, overlap with the last mask, by epoch."""
    curve, epochs = record["curve"], len(record["curve"])
    if not epochs:
        return ""
    accuracy = {name: [(row["epoch"] + 1, row["test"][name]["top1"]) for row in curve] for name in curve[-1]["test"]}
    sparsity = [(row["epoch"] + 1, 100 * row["sparsity"]) for row in curve]
    shares = list(enumerate(stability.exchanged(record), start=1)) if record["config"]["sparsity"] else []
    highest = float(f"{1.05 * max((v for _, v in shares if not math.isnan(v)), default=0) or 1:.2g}")
    overlaps = [(row["epoch"] + 1, row["jaccard"]) for row in record.get("masks", {}).get("overlap_with_last", ())]
    parts = [
        chart("test top-1 of each pass, and sparsity, %", {"sparsity": sparsity, **accuracy}, epochs, 100),
        chart("kept weights exchanged at a choice of masks, %", {"sparse": shares}, epochs, highest),
        chart("overlap of the mask with the last one (Jaccard)", {"sparse": overlaps}, epochs, 1),
        bars({k.removesuffix(".weight"): v for k, v in stability.layer_sparsity(record).items()}),
    ]
    return f'<div class="charts">{"".join(parts)}</div>'


def bars(shares: dict[str, float]) -> str:
    """Return the share removed from each layer as bars, in the order of the network; "" for a dense run."""
    if not any(shares.values()):
        return ""
    wide, high = (WIDTH - LEFT - 8) / len(shares), HEIGHT - LOW - 8
    drawn = "".join(
        f'<rect x="{LEFT + wide * i:.1f}" y="{8 + high * (1 - v):.1f}" width="{0.8 * wide:.1f}" height='
        f'"{high * v:.1f}"><title>{escape(name)}: {100 * v:.1f} %</title></rect>'
        for i, (name, v) in enumerate(shares.items())
    )
    marks = "".join(
        f'<text x="{LEFT - 4}" y="{11 + high * (1 - v):.0f}" text-anchor="end">{100 * v:g}</text>' for v in (0, 0.5, 1)
    )
    words = "sparsity of each layer, %: " + ", ".join(f"{name} {100 * v:.1f}" for name, v in shares.items())
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{escape(words)}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><g fill="#0072B2">{drawn}</g><g font-size="10" '
        f'fill="#444">{marks}</g></svg><figcaption>sparsity of each layer, from input to output, %</figcaption>'
        "</figure>"
    )


def _pairs(values: dict[str, Any]) -> str:
    return " · ".join(f"{_short(k)} <b>{_short(v)}</b>" for k, v in values.items())


def _short(value: Any) -> str:
    """Return a value of a record as HTML, cut where it is longer than a line or two: others may put anything there."""
    return escape(textwrap.shorten(str(value), 200, placeholder=" …"))


def rerun(record: dict[str, Any]) -> str:
    """Return the command that trains a record's run again."""
    config = RunConfig.from_dict(record["config"])
    fetched = ["--download"] if config.dataset in ("cifar10", "cifar100", "imagenette") else []
    return " ".join(["python -m dcil train", *train_command.shortest_argv(config), *fetched])


def details(record: dict[str, Any]) -> str:
    """Return what opens in a run's row: command, record, how it went, configuration, environment, cost, masks."""
    cost = {k: v for k, v in record["cost"].items() if k not in ("layer_sparsity", "sessions", "nonzeros")}
    found = stability.figures(record) if record["curve"] else {}
    measured = {name: f"{value:.3g}" for name, value in found.items() if not math.isnan(value)}
    named = {
        "configuration": record["config"],
        "environment": record["environment"],
        "data": record["data"],
        "cost": cost,
        "nonzeros": record["cost"]["nonzeros"],
        "masks and gradients (chapter 4 says what each is)": measured,
    }
    address = quote(f"../records/{record['run_id']}.json")
    return "".join(
        [
            f"<p>{escape(record['reason'])}</p>" if "reason" in record else "",
            charts(record),
            f'<p>The whole record: <a href="{escape(address)}">JSON</a>. To train this run again:</p>',
            provenance.command(rerun(record)),
            *(f"<p><i>{name}</i>: {_pairs(values)}</p>" for name, values in named.items() if values),
        ]
    )


def row(record: dict[str, Any]) -> str:
    """Return a run's row; its id follows from the run id, so that pages can link to it."""
    c, ends = record["config"], [end["last"]["top1"] for end in record["final"]["passes"].values()]
    failed = "" if record["status"] == "complete" else f" <b>{escape(record['status'])}</b>"
    run, place = escape(record["run_id"]), provenance.anchor(record["run_id"])
    inside = f'<div class="inside"><div>{details(record)}</div></div>'  # wider than its column, see book.css
    first = f"<details><summary><code>{run}</code>{failed}</summary>{inside}</details>"
    accuracies = [*(f"{end:.2f}" for end in ends), "", ""][:2]
    shared = ", shared" if math.isnan(records.own_time_s(record)) else ""
    minutes, date = f"{record['cost']['time_s'] / 60:.1f}{shared}", record["environment"]["date"]
    plain = [
        variant(c),
        f"{100 * c['sparsity']:g}",
        str(c["seed"]),
        *accuracies,
        str(c["epochs"]),
        c["model"],
        c["dataset"],
        record["tier"],
        minutes,
        date,
    ]
    shown = f'<td data-value="{run}">{first}</td>' + "".join(f"<td>{escape(text)}</td>" for text in plain)
    kinds = {
        "tier": record["tier"],
        "dataset": c["dataset"],
        "method": c["method"],
        "sparsity": f"{c['sparsity']:g}",
        "status": record["status"],
    }
    words = " ".join([run, variant(c), c["model"], record["environment"]["device"], *kinds.values()]).lower()
    data = "".join(f' data-{k}="{escape(str(v))}"' for k, v in kinds.items())
    return f'<tr id="{place}" data-text="{escape(words)}"{data}>{shown}</tr>'


def _select(name: str, label: str, values: Iterable[str]) -> str:
    options = "".join(f'<option value="{escape(v)}">{escape(v)}</option>' for v in sorted(set(values)))
    return f'<label>{label} <select data-runs="{name}"><option value="">any</option>{options}</select></label> '


def page(runs: Sequence[dict[str, Any]]) -> str:
    """Return the whole table with its filters, and the script that drives them."""
    values = {
        "tier": [r["tier"] for r in runs],
        "status": [r["status"] for r in runs],
        "sparsity": [f"{r['config']['sparsity']:g}" for r in runs],
        **{k: [r["config"][k] for r in runs] for k in ("dataset", "method")},
    }
    selects = "".join(_select(name, label, values[name]) for name, label in FILTERS.items())
    form = (
        '<form id="runs-form" hidden onsubmit="return false"><label>words <input id="runs-words" type="search">'
        f'</label> {selects}<output id="runs-count" aria-live="polite"></output></form>'
    )
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in COLUMNS)
    rows = "\n".join(row(r) for r in runs)
    return (
        f'{form}\n<table id="runs" class="dataframe runs"><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n'
        '</tbody></table>\n<script src="../_static/runs-table.js" defer></script>'
    )
