"""Which weights are kept: scores, threshold masks, the sparsity schedule and mask distances.

Everything here is a pure function of tensors. A mask is boolean, True = kept; sparsity is the
fraction removed, in [0, 1).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dcil.errors import DcilError, unknown

SCORES = {"l2": torch.square, "l1": torch.abs}
SCOPES = ("global", "layer", "filter")


def cubic_sparsity(epoch: int, final: float, ramp_end: int) -> float:
    """Return the target sparsity at an integer epoch: cubic up to `ramp_end`, then `final`.

    s(e) = s_f − s_f·(1 − e/E_t)³ for e ≤ E_t (Zhu & Gupta 2017; the authors' code evaluates it on
    whole epochs). With `ramp_end = 0` there is no ramp and the target holds from the start.
    """
    if epoch >= ramp_end:
        return final
    return final - final * (1 - epoch / ramp_end) ** 3


def threshold_mask(scores: Tensor, sparsity: float) -> Tensor:
    """Keep the scores strictly above the `int(N·s)`-th smallest (counted from 0); same shape, boolean.

    The authors' rule, edges included: without ties N − int(N·s) − 1 entries stay, so even at
    sparsity 0 the smallest one goes. A selection, not a sort, and no value leaves the device.
    """
    if not 0 <= sparsity < 1:
        raise DcilError(f"sparsity is {sparsity}; it is the fraction removed and must be in [0, 1), e.g. 0.9")
    rank = int(scores.numel() * sparsity)
    return scores > scores.flatten().kthvalue(rank + 1).values


def filter_scores(scores: Tensor) -> Tensor:
    """Return the mean score of each filter: [out, ...] -> [out]."""
    return scores.flatten(1).mean(1)


@torch.no_grad()
def compute_masks(
    weights: Mapping[str, Tensor], sparsity: float, scope: str = "global", score: str = "l2"
) -> dict[str, Tensor]:
    """Return a boolean mask for each weight, on the weight's device.

    `scope` "global" takes one threshold over all weights (the authors' choice), "layer" one per
    weight tensor, "filter" one over the mean score of whole filters (slices of dimension 0).
    `score` is "l2" (w²) or "l1" (|w|); they differ only for filters.
    Raises `DcilError` for an unknown scope or score and for a sparsity outside [0, 1).
    """
    if score not in SCORES:
        raise unknown("score", score, SCORES)
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    scores = {name: SCORES[score](w.detach()) for name, w in weights.items()}
    if scope == "layer":
        return {name: threshold_mask(s, sparsity) for name, s in scores.items()}
    ranked = {name: filter_scores(s) for name, s in scores.items()} if scope == "filter" else scores
    # One threshold over everything: select on the concatenation, then cut it back into layers.
    everything = threshold_mask(torch.cat([s.flatten() for s in ranked.values()]), sparsity)
    pieces = everything.split([s.numel() for s in ranked.values()])
    if scope == "filter":
        per_filter = zip(scores.items(), pieces, strict=True)
        return {n: p.view(-1, *[1] * (s.dim() - 1)).expand_as(s).clone() for (n, s), p in per_filter}
    return {name: piece.view_as(s) for (name, s), piece in zip(scores.items(), pieces, strict=True)}


def flips(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Tensor:
    """Return how many weights changed sides between two sets of masks (0-d integer tensor)."""
    return torch.stack([(before[name] ^ after[name]).sum() for name in after]).sum()


def overlap(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
    """Return the Jaccard index of two sets of masks, |A∩B| / |A∪B| over kept weights (0-d tensor)."""
    both = torch.stack([(a[name] & b[name]).sum() for name in a]).sum()
    either = torch.stack([(a[name] | b[name]).sum() for name in a]).sum()
    return both / either
