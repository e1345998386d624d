"""How steadily a run trained: figures of one record, and how alike the final masks of several are."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import torch

from dcil import models
from dcil.dynamics import empty_channels, final_mask, jaccard
from dcil.lab.runs.frames import MISSING, spread, variant

# What each figure is, in words for a page; accuracies are those of the deployed pass.
FIGURES = {
    "jitter_high": "mean |change of test accuracy| from epoch to epoch, before the learning rate first falls, points",
    "jitter_mid": "mean |change of test accuracy|, between its first and its last fall, points",
    "jitter_low": "mean |change of test accuracy|, after its last fall, points",
    "flips": "share of kept weights exchanged at a choice of masks, once the target is set, %",
    "overlap_mid": "Jaccard overlap of the mask at the target's first epoch with the last one",
    "ever_kept": "share of weights kept at some time since the target was set, per weight kept in the end",
    "norm_gap": "what re-estimated norm statistics add to the last epoch's accuracy, points",
    "norm_gap_mid": "what they add in the middle of the run, points",
    "cosine": "cosine of STE's and the refined gradient on pruned weights, mean over the run",
    "norm_ratio": "norm of STE's gradient over that of the refined one on pruned weights, mean over the run",
}


def _deployed(row: dict[str, Any], what: str = "test") -> float:
    return next(iter(row[what].values()))["top1"]


def jitter(curve: list[dict[str, Any]], first: int, last: int) -> float:
    """Return the mean absolute change of the deployed pass's test top-1 over epochs `first` to `last` − 1, in points.

    Source: as measured on the authors' logs. NaN where there are fewer than two epochs.
    """
    top1 = [_deployed(row) for row in curve[first:last]]
    return fmean(abs(b - a) for a, b in zip(top1, top1[1:], strict=False)) if len(top1) > 1 else math.nan


def exchanged(record: dict[str, Any]) -> list[float]:
    """Return for each epoch the share of kept weights exchanged at a choice of masks, in percent; NaN without a choice.

    An exchange is two weights that change sides. Those by which the sparsity grew or shrank over the epoch are none.
    """
    curve, shares = record["curve"], []
    total = record["cost"]["nonzeros"]["conv"] / max(1 - curve[-1]["sparsity"], 1e-9) if curve else 0
    for row, before in zip(curve, [0.0, *(row["sparsity"] for row in curve)], strict=False):
        swapped = max(round(row["flips"] - total * abs(row["sparsity"] - before)), 0) / 2
        kept = total * (1 - row["sparsity"])
        shares.append(100 * swapped / row["refreshes"] / kept if row["refreshes"] else math.nan)
    return shares


def figures(record: dict[str, Any]) -> dict[str, float]:
    """Return the figures of `FIGURES` for a record; NaN for one that its run did not measure."""
    curve, config = record["curve"], record["config"]
    epochs, steps = len(curve), [0, *config["milestones"], len(curve)]
    at_target = [row for row in curve if config["sparsity"] and row["target_sparsity"] == config["sparsity"]]
    settled = {row["epoch"] for row in at_target[1:]}  # in the first one it is still set
    swaps = [e for row, e in zip(curve, exchanged(record), strict=True) if row["epoch"] in settled and row["refreshes"]]
    overlaps = {row["epoch"]: row["jaccard"] for row in record.get("masks", {}).get("overlap_with_last", ())}
    gradients = [row["gradients"] for row in curve if "gradients" in row]
    controls = {row["epoch"]: _deployed(row, "reestimated") - _deployed(row) for row in curve if "reestimated" in row}
    ever = curve[-1].get("ever_kept", math.nan)
    return {
        "jitter_high": jitter(curve, 0, steps[1]),
        "jitter_mid": jitter(curve, steps[1], steps[-2]),
        "jitter_low": jitter(curve, steps[-2], epochs),
        "flips": fmean(swaps) if swaps else math.nan,
        "overlap_mid": overlaps.get(at_target[0]["epoch"], math.nan) if at_target else math.nan,
        "ever_kept": ever / (1 - curve[-1]["sparsity"]),
        "norm_gap": controls.get(epochs - 1, math.nan),
        "norm_gap_mid": next((gap for epoch, gap in controls.items() if epoch != epochs - 1), math.nan),
        "cosine": fmean(g["cosine"] for g in gradients) if gradients else math.nan,
        "norm_ratio": fmean(g["norm_ratio"] for g in gradients) if gradients else math.nan,
    }


def table(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each complete run: variant, sparsity, seed and its figures."""
    rows = [
        {
            "run": r["run_id"],
            "tier": r["tier"],
            "variant": variant(r["config"]),
            **{k: r["config"][k] for k in ("sparsity", "seed")},
            **figures(r),
        }
        for r in records
        if r["status"] == "complete"
    ]
    return pd.DataFrame(rows, columns=["run", "tier", "variant", "sparsity", "seed", *FIGURES])


def mask_overlaps(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each two runs of one network, variant and sparsity: Jaccard of their masks, and chance's.

    `chance` is what random masks would give that keep as many weights in each layer as these two; see `chance`.
    """
    groups: dict[tuple, list] = {}
    for r in records:
        if (mask := final_mask(r)) is not None:
            c, sample = r["config"], (len(mask), r["masks"]["stride"])  # of one position each, or nothing is compared
            groups.setdefault((variant(c), c["sparsity"], c["dataset"], c["model"], sample), []).append((r, mask))
    rows = [
        {
            "variant": name,
            "sparsity": sparsity,
            "seeds": f"{one['config']['seed']} and {two['config']['seed']}",
            "overlap": jaccard(a, b),
            "chance": chance(one, two),
        }
        for (name, sparsity, *_), runs in groups.items()
        for (one, a), (two, b) in combinations(runs, 2)
    ]
    return pd.DataFrame(rows, columns=["variant", "sparsity", "seeds", "overlap", "chance"])


@functools.lru_cache
def _weights(model: str, num_classes: int) -> dict[str, torch.Size]:
    """Return the shapes of a network's weights by name, in its order."""
    with torch.device("meta"):
        return {name: weight.shape for name, weight in models.build(model, num_classes).named_parameters()}


def layer_sparsity(record: dict[str, Any]) -> dict[str, float]:
    """Return the fraction removed from each prunable weight of a run by name, from input to output.

    The order is the network's: objects of JSON have none. What is no weight of the network is left out.
    """
    found = record["cost"].get("layer_sparsity", {})
    known = _weights(record["config"]["model"], record["data"]["num_classes"]) if found else {}
    return {name: found[name] for name in known if name in found}


def _shapes(record: dict[str, Any]) -> list[torch.Size]:
    """Return the shapes of a run's prunable weights, in the network's order."""
    known = _weights(record["config"]["model"], record["data"]["num_classes"])
    return [known[name] for name in layer_sparsity(record)]


def chance(one: dict[str, Any], two: dict[str, Any]) -> float:
    """Return the Jaccard overlap of random masks that keep, layer by layer, as many weights as two runs did.

    Of n weights of a layer, a and b kept at random, a·b/n are expected in both; the sums over layers are divided. NaN
    for runs that do not name the same layers.
    """
    layers = [layer_sparsity(r) for r in (one, two)]
    if not layers[0] or layers[0].keys() != layers[1].keys():
        return math.nan
    sizes = np.array([shape.numel() for shape in _shapes(one)])
    a, b = (sizes * (1 - np.array(list(shares.values()))) for shares in layers)
    both = (a * b / sizes).sum()
    return float(both / (a.sum() + b.sum() - both))


CURVES = ["run", "variant", "seed", "epoch", "test", "exchanged", "overlap", "ever_kept", "cosine", "norm_ratio"]


def curves(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each run and epoch: test top-1 (%), share of kept weights exchanged at a choice of masks (%),
    overlap with the last mask, share ever kept (%), cosine and norm ratio of the two gradients; NaN if not measured.
    """
    rows = []
    for r in records:
        overlaps = {row["epoch"]: row["jaccard"] for row in r.get("masks", {}).get("overlap_with_last", ())}
        for row, share in zip(r["curve"], exchanged(r), strict=True):
            gradients = row.get("gradients", {})
            rows.append(
                {
                    "run": r["run_id"],
                    "variant": variant(r["config"]),
                    "seed": r["config"]["seed"],
                    "epoch": row["epoch"] + 1,
                    "test": _deployed(row),
                    "exchanged": share,
                    "overlap": overlaps.get(row["epoch"], math.nan),
                    "ever_kept": 100 * row.get("ever_kept", math.nan),
                    **{k: gradients.get(k, math.nan) for k in ("cosine", "norm_ratio")},
                }
            )
    return pd.DataFrame(rows, columns=CURVES)


def beside(
    records: list[dict[str, Any]], variants: Sequence[str], names: Sequence[str] = tuple(FIGURES)
) -> pd.DataFrame:
    """Return one row for each figure named: mean ± sample deviation of variants, and how many seeds each has."""
    found, rows = table(records), []
    for name in names:
        values = {v: found[found["variant"] == v][name].dropna() for v in variants}
        rows.append(
            {
                "figure": FIGURES[name],
                **{v: spread(x, 3) if len(x) else MISSING for v, x in values.items()},
                "n": " and ".join(str(len(x)) for x in values.values()),
            }
        )
    return pd.DataFrame(rows)


def layers(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each run and prunable tensor, in the network's order: its sparsity in percent."""
    rows = [
        {
            "variant": variant(r["config"]),
            "seed": r["config"]["seed"],
            "layer": name.removesuffix(".weight"),
            "sparsity": 100 * share,
        }
        for r in records
        for name, share in layer_sparsity(r).items()
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "layer", "sparsity"])


def count_empty(record: dict[str, Any]) -> float:
    """Return how many output channels keep no weight at the end of a run: as it counted them, else by its final mask.

    NaN for a record from before they were counted that holds only a sample of its mask.
    """
    if (counted := record["curve"][-1].get("gradients", {}).get("empty")) is not None:
        return counted
    mask, shapes = final_mask(record), _shapes(record)
    ends = np.cumsum([shape.numel() for shape in shapes])
    if mask is None or not len(ends) or len(mask) != ends[-1]:
        return math.nan
    return sum(
        int(empty_channels(part.reshape(tuple(shape))).sum())
        for part, shape in zip(np.split(mask, ends[:-1]), shapes, strict=True)
    )


def empties(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each run with masks, by variant and seed: its empty channels, and how the gradients agreed.

    All at the end of training. `share` (%) is the part of STE's squared gradient norm on pruned weights that
    lies in empty channels and `cosine_rest` the cosine outside them; NaN in records from before they were measured.
    """
    rows = []
    for r in (r for r in records if r["curve"]):
        if last := r["curve"][-1].get("gradients"):
            rows.append(
                {
                    "variant": variant(r["config"]),
                    "seed": r["config"]["seed"],
                    "empty": count_empty(r),
                    "norm_ratio": last["norm_ratio"],
                    "cosine": last["cosine"],
                    "share": 100 * last.get("empty_share", math.nan),
                    "cosine_rest": last.get("cosine_rest", math.nan),
                }
            )
    found = pd.DataFrame(rows, columns=["variant", "seed", "empty", "norm_ratio", "cosine", "share", "cosine_rest"])
    return found.sort_values(["variant", "seed"], ignore_index=True)
