"""One figure style for the whole book, and the footer that says where a figure's numbers come from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

# Okabe & Ito's colours, safe for the colour-blind; a method keeps its colour and line across the book.
COLOURS = {"dense": "#000000", "static": "#999999", "ste": "#D55E00", "dcil": "#0072B2"}
PASS_COLOURS = {"sparse": "#0072B2", "dense": "#E69F00", "pruned": "#CC79A7"}
PASS_LINES = {"sparse": "-", "dense": "--", "pruned": ":"}
LABELS = {"dense": "dense", "static": "static mask", "ste": "STE", "dcil": "DCIL"}


def style() -> None:
    """Set the book's style: a white card that reads in both themes, 110 dots an inch."""
    card = {"figure.facecolor": "white", "savefig.facecolor": "white", "figure.dpi": 110}
    sns.set_theme("notebook", "whitegrid", rc=card | {"axes.titlesize": "medium", "legend.frameon": False})


def provenance(records: Iterable[dict[str, Any]]) -> str:
    """Return one line naming run hashes, commit, device, threads, seeds and tier of the records behind a figure."""
    records = list(records)
    if not records:
        return "no records: not run"
    env = [r["environment"] for r in records]
    ids = ", ".join(r["run_id"].rpartition("-")[2] for r in records)
    commits = ", ".join(sorted({e["commit"][:7] + ("+" if e["dirty"] else "") for e in env}))
    machines = ", ".join(sorted({f"{e['device']}, {e['threads']} thread(s), torch {e['torch']}" for e in env}))
    seeds = ", ".join(str(s) for s in sorted({r["config"]["seed"] for r in records}))
    tiers = ", ".join(sorted({r["tier"] for r in records}))
    return f"runs {ids}\ncommit {commits} · tier {tiers} · seeds {seeds}\n{machines}"


def live(config: Any, seeds: Iterable[int] | None = None) -> str:
    """Return the provenance of numbers computed in the page itself, from the configuration used."""
    import torch

    from dcil.engine import device_name, source_state

    full = config.resolve()
    commit, dirty = source_state()
    shown = ", ".join(str(s) for s in (seeds if seeds is not None else [full.seed]))
    device, threads = device_name(torch.device(full.device)), torch.get_num_threads()
    machine = f"{device}, {threads} thread(s), torch {torch.__version__}"
    return (f"computed in this page: {full.run_id}\ncommit {commit[:7]}{'+' if dirty else ''} · tier {full.tier} · "
            f"seeds {shown}\n{machine}")  # fmt: skip


def footer(figure: Figure, source: str, chapter: str) -> Figure:
    """Write under a figure where its numbers come from and the command that redraws it."""
    figure.tight_layout()
    text = f"{source}\nredraw: make chapter NAME={chapter}"
    figure.text(0.01, -0.02, text, fontsize=7.5, color="#555555", va="top", ha="left", family="monospace")
    return figure


def show(figure: Figure, source: str, chapter: str) -> None:
    """Add the footer and show the figure, once, in the notebook."""
    footer(figure, source, chapter)
    plt.show()
