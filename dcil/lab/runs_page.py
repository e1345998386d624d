"""Every run as one table of HTML: searchable with book/_static/runs-table.js, a plain table without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from dcil.lab.plots import PASS_COLOURS
from dcil.lab.stats import variant

COLUMNS = ("run", "tier", "data set", "network", "variant", "sparsity, %", "seed", "epochs", "deployed pass, %",
           "second pass, %", "minutes", "date")  # fmt: skip
FILTERS = {"tier": "tier", "dataset": "data set", "method": "method", "sparsity": "sparsity", "status": "status"}
WIDTH, HEIGHT = 320, 110  # of a curve, in SVG units


def curve_svg(record: dict[str, Any]) -> str:
    """Return test top-1 of each pass (lines) and sparsity (dashed) over epochs, 0 to 100 %, as a small SVG picture."""
    curve = record["curve"]
    if len(curve) < 2:
        return ""

    def line(values: Sequence[float], style: str) -> str:
        at = (f"{4 + (WIDTH - 8) * i / (len(values) - 1):.1f},{HEIGHT - 4 - (HEIGHT - 8) * v / 100:.1f}"
              for i, v in enumerate(values))  # fmt: skip
        return f'<polyline fill="none" {style} points="{" ".join(at)}"/>'

    passes = list(curve[-1]["test"])
    lines = [line([100 * row["sparsity"] for row in curve], 'stroke="#777" stroke-dasharray="3 3"')]
    lines += [line([row["test"][p]["top1"] for row in curve],
                   f'stroke="{PASS_COLOURS.get(p, "#CC79A7")}" stroke-width="2"') for p in passes]  # fmt: skip
    title = f"Test accuracy of {' and '.join(passes)} pass, and sparsity (dashed), over {len(curve)} epochs, 0 to 100 %"
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{escape(title)}">'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(lines)}</svg>')  # fmt: skip


def _pairs(values: dict[str, Any]) -> str:
    items = (f"{escape(str(k))} <b>{escape(str(v))}</b>" for k, v in values.items())
    return " · ".join(items)


def details(record: dict[str, Any]) -> str:
    """Return what opens in a run's row: how it went, configuration, environment, cost, sparsity of each layer."""
    cost = {k: v for k, v in record["cost"].items() if k not in ("layer_sparsity", "sessions", "nonzeros")}
    parts = [f"<p>{escape(record['reason'])}</p>" if "reason" in record else "", curve_svg(record)]
    named = {"configuration": record["config"], "environment": record["environment"], "cost": cost,
             "nonzeros": record["cost"]["nonzeros"],
             "sparsity of layers, %": {k.removesuffix(".weight"): f"{100 * v:.1f}"
                                       for k, v in record["cost"].get("layer_sparsity", {}).items()}}  # fmt: skip
    parts += [f"<p><i>{name}</i>: {_pairs(values)}</p>" for name, values in named.items() if values]
    return "".join(parts)


def row(record: dict[str, Any]) -> str:
    """Return a run's row; its id is the run id, so that pages can link to it."""
    c, ends = record["config"], [end["last"]["top1"] for end in record["final"]["passes"].values()]
    failed = "" if record["status"] == "complete" else f" <b>{escape(record['status'])}</b>"
    run = escape(record["run_id"])
    first = f"<details><summary><code>{run}</code>{failed}</summary>{details(record)}</details>"
    cells = [(first, run), (record["tier"],) * 2, (c["dataset"],) * 2, (c["model"],) * 2, (variant(c),) * 2,
             (f"{100 * c['sparsity']:g}",) * 2, (str(c["seed"]),) * 2, (str(c["epochs"]),) * 2,
             *((f"{end:.2f}",) * 2 for end in ends[:2]), *[("", "")] * (2 - len(ends[:2])),
             (f"{record['cost']['time_s'] / 60:.1f}",) * 2, (record["environment"]["date"],) * 2]  # fmt: skip
    shown = "".join(f'<td data-value="{escape(value)}">{text if i == 0 else escape(text)}</td>'
                    for i, (text, value) in enumerate(cells))  # fmt: skip
    kinds = {"tier": record["tier"], "dataset": c["dataset"], "method": c["method"], "sparsity": f"{c['sparsity']:g}",
             "status": record["status"]}  # fmt: skip
    words = " ".join([run, variant(c), c["model"], record["environment"]["device"], *kinds.values()]).lower()
    data = "".join(f' data-{k}="{escape(str(v))}"' for k, v in kinds.items())
    return f'<tr id="{run}" data-text="{escape(words)}"{data}>{shown}</tr>'


def _select(name: str, label: str, values: Iterable[str]) -> str:
    options = "".join(f'<option value="{escape(v)}">{escape(v)}</option>' for v in sorted(set(values)))
    return f'<label>{label} <select data-runs="{name}"><option value="">any</option>{options}</select></label> '


def page(records: Sequence[dict[str, Any]]) -> str:
    """Return the whole table with its filters, and the script that drives them."""
    values = {"tier": [r["tier"] for r in records], "status": [r["status"] for r in records],
              "sparsity": [f"{r['config']['sparsity']:g}" for r in records],
              **{k: [r["config"][k] for r in records] for k in ("dataset", "method")}}  # fmt: skip
    selects = "".join(_select(name, label, values[name]) for name, label in FILTERS.items())
    form = ('<form id="runs-form" hidden onsubmit="return false"><label>words <input id="runs-words" type="search">'
            f'</label> {selects}<output id="runs-count" aria-live="polite"></output></form>')  # fmt: skip
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in COLUMNS)
    rows = "\n".join(row(r) for r in records)
    return (f'{form}\n<table id="runs" class="dataframe runs"><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n'
            '</tbody></table>\n<script src="../_static/runs-table.js" defer></script>')  # fmt: skip
