"""The masks that runs end with: how similar they are, and where their zeros lie."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd
import torch

from dcil import models
from dcil.dynamics import empty_channels, jaccard
from dcil.run_record import Run


def overlaps_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each pair of runs of one network, data set, variant and sparsity: their final masks' overlap.

    `overlap` is the Jaccard overlap, `chance` that of random masks that keep as many weights in each layer; see
    `chance_overlap`.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        if run.final_mask is not None:
            trained = run.variant, run.config.sparsity, run.config.dataset, run.config.model
            sampled = len(run.final_mask), run.mask_stride  # only masks sampled at the same positions are comparable
            groups.setdefault(trained + sampled, []).append(run)
    rows = []
    for alike in groups.values():
        for one, two in combinations(alike, 2):
            rows.append(
                {
                    "variant": one.variant,
                    "sparsity": one.config.sparsity,
                    "seeds": f"{one.config.seed} and {two.config.seed}",
                    "overlap": jaccard(*(run.final_mask for run in (one, two) if run.final_mask is not None)),
                    "chance": chance_overlap(one, two),
                }
            )
    return pd.DataFrame(rows, columns=["variant", "sparsity", "seeds", "overlap", "chance"])


@functools.lru_cache
def _weights(model: str, num_classes: int) -> dict[str, torch.Size]:
    """Return the shapes of a network's parameters by name, in the network's order."""
    with torch.device("meta"):
        return {name: weight.shape for name, weight in models.build(model, num_classes).named_parameters()}


def layer_sparsity(run: Run) -> dict[str, float]:
    """Return the fraction removed from each prunable tensor of a run, by name, from input to output.

    The order comes from the network, since JSON objects have none. A name that is not in the network is left out.
    """
    found = run.cost.layer_sparsity
    return {name: found[name] for name in _weights(run.config.model, run.data.num_classes) if name in found}


def _prunable_shapes(run: Run) -> list[torch.Size]:
    """Return the shapes of a run's prunable tensors, in the network's order."""
    known = _weights(run.config.model, run.data.num_classes)
    return [known[name] for name in layer_sparsity(run)]


def chance_overlap(one: Run, two: Run) -> float:
    """Return the Jaccard overlap to expect of random masks that keep, layer by layer, as many weights as two runs did.

    If the masks keep a and b of a layer's n weights at random, a·b/n weights are expected in both. Intersection and
    union are summed over layers, then divided. NaN for runs that do not name the same layers.
    """
    layers = [layer_sparsity(run) for run in (one, two)]
    if not layers[0] or layers[0].keys() != layers[1].keys():
        return math.nan
    sizes = np.array([shape.numel() for shape in _prunable_shapes(one)])
    a, b = (sizes * (1 - np.array(list(shares.values()))) for shares in layers)
    both = (a * b / sizes).sum()
    return float(both / (a.sum() + b.sum() - both))


def layers_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each run and prunable tensor, in the network's order: its sparsity in percent."""
    rows = []
    for run in runs:
        for name, share in layer_sparsity(run).items():
            rows.append((run.variant, run.config.seed, name.removesuffix(".weight"), 100 * share))
    return pd.DataFrame(rows, columns=["variant", "seed", "layer", "sparsity"])


def empty_channel_count(run: Run) -> float:
    """Return how many output channels keep no weight at the end of a run: its own count, else from its final mask.

    NaN for an older run that did not count them and whose record holds only a sample of its mask.
    """
    if (counted := run.curve[-1].gradients.get("empty")) is not None:
        return counted
    mask, shapes = run.final_mask, _prunable_shapes(run)
    ends = np.cumsum([shape.numel() for shape in shapes])
    if mask is None or not len(ends) or len(mask) != ends[-1]:
        return math.nan
    empty = 0
    for layer, shape in zip(np.split(mask, ends[:-1]), shapes, strict=True):
        empty += int(empty_channels(layer.reshape(tuple(shape))).sum())
    return empty


def empty_channels_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each run that measured its gradients: empty channels, and how STE's and the refined one agree.

    All values are from the end of training. `share` (%) is the part of STE's squared gradient norm on pruned weights
    that lies in empty channels, `cosine_rest` the cosine outside them; NaN in records older than these measurements.
    """
    rows = []
    for run in runs:
        if run.curve and (last := run.curve[-1].gradients):
            rows.append(
                {
                    "variant": run.variant,
                    "seed": run.config.seed,
                    "empty": empty_channel_count(run),
                    "norm_ratio": last["norm_ratio"],
                    "cosine": last["cosine"],
                    "share": 100 * last.get("empty_share", math.nan),
                    "cosine_rest": last.get("cosine_rest", math.nan),
                }
            )
    found = pd.DataFrame(rows, columns=["variant", "seed", "empty", "norm_ratio", "cosine", "share", "cosine_rest"])
    return found.sort_values(["variant", "seed"], ignore_index=True)
