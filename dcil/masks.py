"""Which weights are kept: scores, threshold masks, the sparsity schedule and mask distances.

Everything here is a pure function of tensors. A mask is boolean, True = kept; sparsity is the
fraction removed, in [0, 1).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dcil.errors import DcilError, unknown

#: Score functions by name; each maps a weight to scores of the same shape, by which weights are ranked.
SCORES = {"l2": torch.square, "l1": torch.abs}
#: Scopes of a threshold: all layers together, each layer by itself, or the mean scores of whole filters.
SCOPES = ("global", "layer", "filter")


def cubic_sparsity(epoch: float, final: float, ramp_end: int) -> float:
    """Return the target sparsity at an epoch, which may be fractional: cubic up to `ramp_end`, then `final`.

    s(e) = s_f − s_f·(1 − e/E_t)³ for e ≤ E_t (Zhu & Gupta 2017, evaluated by step; the authors' code evaluates
    it by epoch). With `ramp_end = 0` there is no ramp and the target holds from the start.

    >>> [round(cubic_sparsity(epoch, final=0.9, ramp_end=4), 2) for epoch in range(6)]
    [0.0, 0.52, 0.79, 0.89, 0.9, 0.9]
    """
    if epoch >= ramp_end:
        return final
    return final - final * (1 - epoch / ramp_end) ** 3


def threshold_mask(scores: Tensor, sparsity: float, exact: bool = False) -> Tensor:
    """Keep the scores strictly above the `int(N·s)`-th smallest (counted from 0); same shape, boolean.

    The authors' rule, edge cases included: without ties, N − int(N·s) − 1 entries are kept, so even at
    sparsity 0 the smallest one is removed. The threshold is selected, not found by sorting, and no value leaves the
    device. With `exact`, ties do not change the number kept: among equal scores, the first are removed.
    Raises `dcil.DcilError` for a sparsity outside [0, 1).

    >>> import torch
    >>> threshold_mask(torch.tensor([0.4, 0.1, 0.3, 0.2]), sparsity=0.5).tolist()
    [True, False, False, False]
    """
    removed = scores.numel() - number_kept(scores.numel(), sparsity)
    if exact:
        mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
        mask[scores.flatten().argsort(stable=True)[removed:]] = True
        return mask.view(scores.shape)
    return scores > scores.flatten().kthvalue(removed).values


def number_kept(number: int, sparsity: float) -> int:
    """Return how many of a number of scores without ties `threshold_mask` keeps, N − int(N·s) − 1.

    Raises `dcil.DcilError` for a sparsity outside [0, 1).

    >>> number_kept(4, sparsity=0.5)
    1
    """
    if not 0 <= sparsity < 1:
        raise DcilError(f"sparsity is {sparsity}; it is the fraction removed and must be in [0, 1), e.g. 0.9")
    return number - int(number * sparsity) - 1


def filter_scores(scores: Tensor) -> Tensor:
    """Return the mean score of each filter: [out, ...] -> [out].

    >>> import torch
    >>> filter_scores(torch.tensor([[1.0, 3.0], [5.0, 7.0]])).tolist()
    [2.0, 6.0]
    """
    return scores.flatten(1).mean(1)


def over_filters(values: Tensor, like: Tensor) -> Tensor:
    """Broadcast a value per filter [out] to every weight of the filter, in the shape of `like` [out, ...]; a view.

    >>> over_filters(torch.tensor([1, 2]), torch.zeros(2, 3)).tolist()
    [[1, 1, 1], [2, 2, 2]]
    """
    return values.view(-1, *[1] * (like.dim() - 1)).expand_as(like)


def filters_first(weights: Mapping[str, Tensor], transposed: Mapping[str, int]) -> dict[str, Tensor]:
    """Return weights with their filters along dimension 0, [out, ...]; a second call restores their layout.

    Weights of transposed convolutions are stored as [in, out/groups, ...]; `transposed` has their names and groups.

    >>> import torch
    >>> filters_first({"up": torch.zeros(4, 3, 5, 5)}, {"up": 2})["up"].shape
    torch.Size([6, 2, 5, 5])
    """

    def turned(weight: Tensor, groups: int) -> Tensor:
        return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)

    return {name: turned(w, transposed[name]) if name in transposed else w for name, w in weights.items()}


@torch.no_grad()
def compute_masks(
    weights: Mapping[str, Tensor],
    sparsity: float,
    scope: str = "global",
    score: str = "l2",
    transposed: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """Return a boolean mask for each weight, on the weight's device.

    `scope` "global" takes one threshold over all weights (the authors' choice), "layer" one per
    weight tensor, "filter" one over the mean scores of whole filters: slices along dimension 0, or along
    dimension 1 for weights of transposed convolutions, whose names and groups `transposed` has.
    `score` is "l2" (w²) or "l1" (the absolute value); they differ only for filters. Weights of
    fewer bits than float32 are scored in float32, and the number kept is exact despite their many ties. A complex
    weight is scored by its absolute value.
    Equal scores at the threshold are removed together, and so are scores that are not a number.
    Raises `dcil.DcilError` for an unknown scope or score, for a sparsity outside [0, 1), for one that leaves a
    threshold's weights or filters none, and for the scope "filter" with a weight of fewer than two dimensions.

    >>> import torch
    >>> weights = {"a": torch.tensor([[0.9, -0.1], [0.8, 0.7]]), "b": torch.tensor([[0.2, -0.3]])}
    >>> {name: mask.int().tolist() for name, mask in compute_masks(weights, sparsity=0.5).items()}
    {'a': [[1, 0], [1, 0]], 'b': [[0, 0]]}
    >>> {name: mask.int().tolist() for name, mask in compute_masks(weights, sparsity=0.4, scope="filter").items()}
    {'a': [[0, 0], [1, 1]], 'b': [[0, 0]]}
    """
    if score not in SCORES:
        raise unknown("score", score, SCORES)
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    exact = any(w.dtype.itemsize < 4 for w in weights.values())
    # Squares of small weights would underflow in float16.
    real = {name: w.detach().abs() if w.is_complex() else w.detach() for name, w in weights.items()}
    wide = {name: w.to(torch.promote_types(w.dtype, torch.float32)) for name, w in real.items()}
    scores = {name: SCORES[score](w) for name, w in wide.items()}
    if scope == "layer":
        for name, s in scores.items():
            _require_any(s.numel(), sparsity, scope, f"weights of {name}")
        return {name: threshold_mask(s, sparsity, exact) for name, s in scores.items()}
    if scope == "filter":
        return _filter_masks(scores, sparsity, exact, transposed or {})
    _require_any(sum(s.numel() for s in scores.values()), sparsity, scope, "prunable weights")
    return _masks_of_all(scores, sparsity, exact)


def _require_any(number: int, sparsity: float, scope: str, what: str) -> None:
    """Raise `DcilError` if the threshold rule keeps none of a number of scores, which would cut the network."""
    if number_kept(number, sparsity) < 1:
        other = "" if scope == "global" else ", or use the scope 'global'"
        raise DcilError(
            f"sparsity {sparsity:g} with the scope {scope!r} leaves none of the {number:,} {what}; "
            f"lower the sparsity{other}"
        )


def _masks_of_all(scores: Mapping[str, Tensor], sparsity: float, exact: bool) -> dict[str, Tensor]:
    """Return masks by one threshold over all scores, which are concatenated and then split back into layers."""
    everything = threshold_mask(torch.cat([s.flatten() for s in scores.values()]), sparsity, exact)
    pieces = everything.split([s.numel() for s in scores.values()])
    return {name: piece.view_as(s) for (name, s), piece in zip(scores.items(), pieces, strict=True)}


def _filter_masks(
    scores: Mapping[str, Tensor], sparsity: float, exact: bool, transposed: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return masks by one threshold over the mean scores of all filters."""
    if flat := [name for name, s in scores.items() if s.dim() < 2]:
        raise DcilError(
            f"scope is 'filter', but {flat[0]} has the shape {list(scores[flat[0]].shape)} and so no "
            "filters; leave it out of `prunable`, or use the scope 'global' or 'layer'"
        )
    scores = filters_first(scores, transposed)
    _require_any(sum(len(s) for s in scores.values()), sparsity, "filter", "filters")
    kept = _masks_of_all({name: filter_scores(s) for name, s in scores.items()}, sparsity, exact)
    return filters_first({name: over_filters(k, scores[name]).clone() for name, k in kept.items()}, transposed)


def flips(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Tensor:
    """Return the number of flips: weights kept in exactly one of two sets of masks (0-d integer tensor).

    >>> import torch
    >>> flips({"w": torch.tensor([True, True, False])}, {"w": torch.tensor([True, False, True])}).item()
    2
    """
    return torch.stack([(before[name] ^ after[name]).sum() for name in after]).sum()


def overlap(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
    """Return the Jaccard index of two sets of masks, `|A∩B| / |A∪B|` over kept weights (0-d tensor).

    >>> import torch
    >>> overlap({"w": torch.tensor([True, True, False])}, {"w": torch.tensor([True, False, False])}).item()
    0.5
    """
    both = torch.stack([(a[name] & b[name]).sum() for name in a]).sum()
    either = torch.stack([(a[name] | b[name]).sum() for name in a]).sum()
    return both / either


def allocate(shares: Mapping[str, float], sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Return whole numbers that sum to `total`, each within one of shares·sizes, by the largest-remainder method.

    `total` is the sum of shares·sizes or up to one less.

    >>> allocate({"a": 0.6, "b": 0.2}, {"a": 4, "b": 4}, total=3)
    {'a': 2, 'b': 1}
    """
    ideal = {name: shares[name] * sizes[name] for name in sizes}
    counts = {name: int(value) for name, value in ideal.items()}
    by_remainder = sorted(sizes, key=lambda n: (counts[n] - ideal[n], n))
    missing = total - sum(counts.values())
    if missing < 0:  # all products were whole numbers
        counts[by_remainder[-1]] -= 1
    for name in by_remainder[: max(missing, 0)]:
        counts[name] += 1
    assert sum(counts.values()) == total
    return counts


def erdos_renyi_kernel(shapes: Mapping[str, torch.Size], sparsity: float) -> dict[str, float]:
    """Return the kept share of each layer, proportional to (sum) / (product) of its dimensions, but at most 1.

    Smaller layers stay denser. Source: ERK of RigL (Evci et al. 2020, arXiv 1911.11134), after SET.

    >>> import torch
    >>> shares = erdos_renyi_kernel({"small": torch.Size([4, 4]), "large": torch.Size([40, 40])}, sparsity=0.8)
    >>> {name: round(share, 3) for name, share in shares.items()}
    {'small': 1.0, 'large': 0.192}
    """
    raw = {name: sum(shape) / shape.numel() for name, shape in shapes.items()}
    full: set[str] = set()
    while len(full) < len(shapes):
        budget = (1 - sparsity) * sum(s.numel() for s in shapes.values()) - sum(shapes[n].numel() for n in full)
        factor = budget / sum(raw[n] * shapes[n].numel() for n in shapes if n not in full)
        over = {n for n in shapes if n not in full and factor * raw[n] > 1}
        if not over:
            return {n: 1.0 if n in full else factor * raw[n] for n in shapes}
        full |= over
    return dict.fromkeys(shapes, 1.0)  # nothing to remove


def random_masks(
    weights: Mapping[str, Tensor], sparsity: float, spread: str, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return random masks that keep N − int(N·s) − 1 entries in total, as many as the threshold rule.

    `spread` "uniform" gives every layer the same share, "erk" that of `erdos_renyi_kernel`. Masks are drawn on
    the CPU, so that a seed gives the same masks on any device.

    >>> import torch
    >>> masks = random_masks({"w": torch.zeros(4, 5)}, 0.5, "uniform", torch.Generator().manual_seed(0))
    >>> masks["w"].shape, int(masks["w"].sum())
    (torch.Size([4, 5]), 9)
    """
    shapes = {name: w.shape for name, w in weights.items()}
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    shares = erdos_renyi_kernel(shapes, sparsity) if spread == "erk" else dict.fromkeys(shapes, 1 - sparsity)
    counts = allocate(shares, sizes, number_kept(sum(sizes.values()), sparsity))
    masks = {}
    for name, weight in weights.items():
        mask = torch.zeros(sizes[name], dtype=torch.bool)
        mask[torch.randperm(sizes[name], generator=generator)[: counts[name]]] = True
        masks[name] = mask.view(shapes[name]).to(weight.device)
    return masks


@torch.no_grad()
def drop_and_grow(weight: Tensor, mask: Tensor, share: float, growth: Tensor, returning: bool = False) -> Tensor:
    """Return a mask that drops the smallest `share` of the kept weights and grows the same number.

    `growth`, of the weight's shape, ranks the candidates, largest first: all weights that were not kept, and with
    `returning` also those just dropped. Source: SET (Mocanu et al. 2018) with random growth, RigL (Evci et al. 2020)
    with `|gradient|`; in RigL's code (github.com/google-research/rigl), all weights but the survivors are candidates.

    >>> import torch
    >>> weight, mask = torch.tensor([0.9, 0.1, 0.0, 0.0]), torch.tensor([True, True, False, False])
    >>> drop_and_grow(weight, mask, share=0.5, growth=torch.tensor([0.0, 9.0, 0.2, 0.7])).tolist()
    [True, False, False, True]
    >>> drop_and_grow(weight, mask, 0.5, growth=torch.tensor([0.0, 9.0, 0.2, 0.7]), returning=True).tolist()
    [True, True, False, False]
    """
    kept = int(mask.sum())
    exchanged = int(share * kept) if returning else min(int(share * kept), mask.numel() - kept)
    size = torch.where(mask, weight.detach().abs(), torch.inf).flatten()
    dropped = size.topk(exchanged, largest=False).indices
    after = mask.flatten().clone()
    after[dropped] = False
    barred = after if returning else mask.flatten()
    after[torch.where(barred, -torch.inf, growth.flatten()).topk(exchanged).indices] = True
    return after.view_as(mask)
