"""One figure style for the whole book, and the footer that says where a figure's numbers come from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

# Okabe & Ito's colours, safe for the colour-blind; a method keeps its colour and line across the book.
COLOURS = {"dense": "#000000", "static": "#999999", "ste": "#D55E00", "dcil": "#0072B2", "gmp": "#E69F00",
           "rigl": "#009E73", "set": "#56B4E9", "st3": "#CC79A7", "acdc": "#8C6D31", "one_shot": "#5F5F5F",
           "random": "#BBBBBB", "random_erk": "#D0D0D0"}  # fmt: skip
MARKERS = {"dense": "s", "ste": "v", "dcil": "o", "gmp": "^", "rigl": "D", "st3": "P"}
PASS_COLOURS = {"sparse": "#0072B2", "dense": "#E69F00", "pruned": "#CC79A7"}
PASS_LINES = {"sparse": "-", "dense": "--", "pruned": ":"}
# What a choice of masks did to a weight, and where in training a gradient was measured.
SIDE_COLOURS = {"pruned": "#EDEDED", "kept": "#7FB8DC", "revived": "#00634A", "newly pruned": "#D55E00"}
STATE_COLOURS = {"at initialisation": "#CC79A7", "after training": "#0072B2"}
STATE_LINES = {"at initialisation": "--", "after training": "-"}
LABELS = {"dense": "dense", "static": "static mask", "ste": "STE", "dcil": "DCIL", "gmp": "gradual magnitude",
          "rigl": "RigL", "set": "SET", "st3": "ST-3", "acdc": "AC/DC", "one_shot": "one shot", "random": "random mask",
          "random_erk": "random mask, ERK"}  # fmt: skip


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


def computed(what: str, tier: str, seeds: Iterable[int], device: Any = "cpu") -> str:
    """Return the provenance of numbers computed in the page itself; `what` names the experiment."""
    import torch

    from dcil.machine import device_name, source_state

    commit, dirty = source_state()
    shown = ", ".join(str(s) for s in seeds)
    machine = f"{device_name(torch.device(device))}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
    return (f"computed in this page: {what}\ncommit {commit[:7]}{'+' if dirty else ''} · tier {tier} · "
            f"seeds {shown}\n{machine}")  # fmt: skip


def live(config: Any, seeds: Iterable[int] | None = None) -> str:
    """Return the provenance of a run made in the page itself, from the configuration used."""
    full = config.resolve()
    return computed(full.run_id, full.tier, seeds if seeds is not None else [full.seed], full.device)


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
