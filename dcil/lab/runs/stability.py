"""How steadily a run trained: stability figures of one record, and how similar the final masks of several runs are."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise
from statistics import fmean

import numpy as np
import pandas as pd
import torch

from dcil import models
from dcil.dynamics import empty_channels, jaccard
from dcil.lab.runs import paired
from dcil.lab.runs.frames import spread
from dcil.lab.runs.names import listed
from dcil.run_record import Run

# What each figure measures, as pages word it; accuracies are those of the deployed pass.
FIGURES = {
    "jitter_high": "mean |change of test accuracy| from epoch to epoch, before the learning rate first falls, points",
    "jitter_mid": "mean |change of test accuracy|, between its first and its last fall, points",
    "jitter_low": "mean |change of test accuracy|, after its last fall, points",
    "flips": "share of kept weights exchanged at a choice of masks, once the target is set, %",
    "overlap_mid": "Jaccard overlap of the mask at the target's first epoch with the last one",
    "ever_kept": "share of weights kept at some time since the target was set, per weight kept in the end",
    "norm_gap": "what re-estimated norm statistics add to the last epoch's accuracy, points",
    "norm_gap_mid": "what re-estimated norm statistics add in the middle of the run, points",
    "cosine": "cosine of STE's and the refined gradient on pruned weights, mean over the run",
    "norm_ratio": "norm of STE's gradient over that of the refined one on pruned weights, mean over the run",
}


def jitter(top1: Sequence[float]) -> float:
    """Return the mean absolute change from one epoch to the next, in the values' unit; NaN below two epochs.

    The authors' logs are measured in the same way.

    >>> jitter([10.0, 30.0, 20.0])
    15.0
    """
    return fmean(abs(after - before) for before, after in pairwise(top1)) if len(top1) > 1 else math.nan


def exchange_rates(run: Run) -> list[float]:
    """Return, for each epoch, the share of kept weights exchanged per mask refresh, in percent; NaN without a refresh.

    An exchange is one weight pruned and one revived. Flips by which the sparsity rose or fell over the epoch do not
    count.
    """
    total = run.cost.nonzeros["conv"] / max(1 - run.sparsity, 1e-9) if run.curve else 0
    before, shares = 0.0, []
    for epoch in run.curve:
        swapped = max(round(epoch.flips - total * abs(epoch.sparsity - before)), 0) / 2
        kept = total * (1 - epoch.sparsity)
        shares.append(100 * swapped / epoch.refreshes / kept if epoch.refreshes else math.nan)
        before = epoch.sparsity
    return shares


def exchanged_an_epoch(run: Run, epochs: slice = slice(None)) -> float:
    """Return the share of kept weights exchanged per epoch (%), summed over its mask refreshes; the mean over `epochs`.

    This compares methods with different mask periods. A weight that comes back twice counts twice.
    """
    done = [(rate, epoch.refreshes) for rate, epoch in zip(exchange_rates(run), run.curve, strict=True)]
    return _mean([rate * choices if choices else 0.0 for rate, choices in done[epochs]])


def stability_figures(run: Run) -> dict[str, float]:
    """Return a run's value of each of `FIGURES`; NaN where the run did not measure it."""
    name, top1 = run.deployed, [epoch.test[run.deployed] for epoch in run.curve]
    falls = run.config.milestones or (len(top1), 0)
    at_target = [e for e in run.curve if run.config.sparsity and e.target_sparsity == run.config.sparsity]
    settled = {epoch.epoch for epoch in at_target[1:]}  # in the first of them the masks still move to the target
    swaps = [rate for epoch, rate in enumerate(exchange_rates(run)) if epoch in settled and not math.isnan(rate)]
    gaps = {e.epoch: e.reestimated[name] - e.test[name] for e in run.curve if e.reestimated}
    end = run.curve[-1]
    return {
        "jitter_high": jitter(top1[: falls[0]]),
        "jitter_mid": jitter(top1[falls[0] : falls[-1]]),
        "jitter_low": jitter(top1[falls[-1] :]),
        "flips": _mean(swaps),
        "overlap_mid": run.overlap_with_last.get(at_target[0].epoch, math.nan) if at_target else math.nan,
        "ever_kept": end.ever_kept / (1 - end.sparsity),
        "norm_gap": gaps.pop(end.epoch, math.nan),
        "norm_gap_mid": next(iter(gaps.values()), math.nan),
        "cosine": _mean([e.gradients["cosine"] for e in run.curve if e.gradients]),
        "norm_ratio": _mean([e.gradients["norm_ratio"] for e in run.curve if e.gradients]),
    }


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def stability_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each complete run: its id, variant, seed and `FIGURES`."""
    rows = [
        {"run": run.run_id, "variant": run.variant, "seed": run.config.seed} | stability_figures(run)
        for run in runs
        if run.complete
    ]
    return pd.DataFrame(rows, columns=["run", "variant", "seed", *FIGURES])


def figure_by_seed(table: pd.DataFrame, variant: str, figure: str) -> pd.Series:
    """Return a variant's values of one of `FIGURES`, by seed; `table` is a `stability_table` of one setting."""
    return paired.one_value_a_seed(table[table["variant"] == variant], variant, figure)


def fewer_exchanges(runs: Iterable[Run], variant: str, baseline: str = "ste") -> pd.Series:
    """Return the share of a baseline's exchanges (`flips`) that a variant does without, at each seed that both have."""
    found = stability_table(run for run in runs if run.variant in (variant, baseline))
    return (1 - figure_by_seed(found, variant, "flips") / figure_by_seed(found, baseline, "flips")).dropna()


def stability_by_variant(
    runs: Iterable[Run], variants: Sequence[str], names: Sequence[str] = tuple(FIGURES)
) -> pd.DataFrame:
    """Return one row for each figure named: mean ± sample deviation of each variant, and the numbers of seeds, `n`.

    `n` is a single number if all variants have equally many seeds, else a list in the order of the columns. A variant
    without a run has no column; if none has a run, the table is empty.
    """
    found, rows = stability_table(runs), []
    variants = [variant for variant in variants if variant in set(found["variant"])]
    for name in names if variants else ():
        row, counts = {"figure": FIGURES[name]}, []
        digits = 2 if FIGURES[name].endswith("points") else 3  # accuracies have two everywhere
        for variant in variants:
            values = found[found["variant"] == variant][name].dropna()
            row[variant] = spread(values, digits)
            counts.append(str(len(values)))
        rows.append(row | {"n": counts[0] if len(set(counts)) == 1 else listed(counts)})
    return pd.DataFrame(rows)


DYNAMICS_COLUMNS = ["run", "variant", "seed", "epoch", "test", "exchanged", "overlap", "ever_kept", "cosine",
                    "norm_ratio"]  # fmt: skip


def dynamics_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row for each run and epoch; NaN if not measured.

    Columns: test top-1 (%), share of kept weights exchanged per mask refresh (%), overlap with the last mask, share
    ever kept (%), cosine and norm ratio of the two gradients.
    """
    rows = []
    for run in runs:
        for epoch, rate in zip(run.curve, exchange_rates(run), strict=True):
            rows.append(
                {
                    "run": run.run_id,
                    "variant": run.variant,
                    "seed": run.config.seed,
                    "epoch": epoch.epoch + 1,
                    "test": epoch.test[run.deployed],
                    "exchanged": rate,
                    "overlap": run.overlap_with_last.get(epoch.epoch, math.nan),
                    "ever_kept": 100 * epoch.ever_kept,
                    "cosine": epoch.gradients.get("cosine", math.nan),
                    "norm_ratio": epoch.gradients.get("norm_ratio", math.nan),
                }
            )
    return pd.DataFrame(rows, columns=DYNAMICS_COLUMNS)


# --- masks


def mask_overlaps_table(runs: Iterable[Run]) -> pd.DataFrame:
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
