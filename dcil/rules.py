"""Gradient rules: what a pass sees of the shared weights, and which weights its gradient reaches.

With weights `w`, a mask `m` (1 = kept) and `g` the gradient with respect to the value that the
layer used, each rule is one line of stop-gradient algebra:

================  =======  ===================  ================================
rule              forward  gradient reaching w  used by
================  =======  ===================  ================================
kept              w·m      g·m                  static masks, DCIL's sparse pass
straight_through  w·m      g                    DPF / STE
refined           w        g·(1−m)              DCIL's dense pass
dense             w        g                    dense training, ablation
pruned_only       w·(1−m)  g·(1−m)              ablation
twin              w        g                    a second dense pass, control
observed          w        0                    a teacher, control
faint             w·m      g·m + g·(1−m)/10     STE, pruned weights moved a tenth as far, ablation
soft_threshold    r(w)·m   g                    ST-3; r shrinks and rescales
soft_kept         r(w)·m   g·m                  DCIL's sparse pass with ST-3's threshold
================  =======  ===================  ================================

The forward values are exact, not merely close, since with a binary mask every sum below adds a zero (except under a
soft threshold, where the values differ by design).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor


def kept(w: Tensor, m: Tensor) -> Tensor:
    """Use the kept weights and train only them (`w·m`, gradient `g·m`).

    `w` of any shape, `m` boolean and of the same shape. Source: the usual training with a fixed mask.

    >>> import torch
    >>> w, m = torch.tensor([3.0, 5.0], requires_grad=True), torch.tensor([True, False])
    >>> kept(w, m).tolist()
    [3.0, 0.0]
    >>> torch.autograd.grad(kept(w, m).sum(), w)[0].tolist()
    [1.0, 0.0]
    """
    return w * m


def straight_through(w: Tensor, m: Tensor) -> Tensor:
    """Use the kept weights, but let the gradient reach every weight (`w·m`, gradient `g`).

    Shapes as in `dcil.rules.kept`. Source: Bengio et al. 2013 for the estimator, Lin et al. 2020 (DPF)
    for its use in pruning.

    >>> import torch
    >>> w, m = torch.tensor([3.0, 5.0], requires_grad=True), torch.tensor([True, False])
    >>> straight_through(w, m).tolist()
    [3.0, 0.0]
    >>> torch.autograd.grad(straight_through(w, m).sum(), w)[0].tolist()
    [1.0, 1.0]
    """
    return w + (w * m - w).detach()


def faint(w: Tensor, m: Tensor) -> Tensor:
    """Use the kept weights; pruned weights get a tenth of the gradient (`w·m`, gradient `g·m + g·(1−m)/10`).

    Shapes as in `dcil.rules.kept`. Source: a control of this book, which asks whether STE suffers from the direction or
    from the size of the gradient that it gives pruned weights.

    >>> import torch
    >>> w, m = torch.tensor([3.0, 5.0], requires_grad=True), torch.tensor([True, False])
    >>> faint(w, m).tolist()
    [3.0, 0.0]
    >>> [round(x, 2) for x in torch.autograd.grad(faint(w, m).sum(), w)[0].tolist()]
    [1.0, 0.1]
    """
    tenth = 0.1 * (w * m.logical_not())
    return w * m + (tenth - tenth.detach())


def refined(w: Tensor, m: Tensor) -> Tensor:
    """Use all weights but train only the pruned ones (`w`, gradient `g·(1−m)`).

    Shapes as in `dcil.rules.kept`. Source: DCIL's refined gradient (arXiv 2109.04660); the authors'
    "full" path.

    >>> import torch
    >>> w, m = torch.tensor([3.0, 5.0], requires_grad=True), torch.tensor([True, False])
    >>> refined(w, m).tolist()
    [3.0, 5.0]
    >>> torch.autograd.grad(refined(w, m).sum(), w)[0].tolist()
    [0.0, 1.0]
    """
    return w * m.logical_not() + (w * m).detach()


def dense(w: Tensor, m: Tensor) -> Tensor:
    """Use and train every weight; the mask is ignored (`w`, gradient `g`).

    >>> import torch
    >>> dense(torch.tensor([3.0, 5.0]), torch.tensor([True, False])).tolist()
    [3.0, 5.0]
    """
    return w


def pruned_only(w: Tensor, m: Tensor) -> Tensor:
    """Use and train only the weights that the mask removes (`w·(1−m)`, gradient `g·(1−m)`).

    Source: a path type in the authors' code.

    >>> import torch
    >>> pruned_only(torch.tensor([3.0, 5.0]), torch.tensor([True, False])).tolist()
    [0.0, 5.0]
    """
    return w * m.logical_not()


def observed(w: Tensor, m: Tensor) -> Tensor:
    """Use all weights and train none of them (`w`, gradient 0): a dense teacher whose norms and head still learn.

    >>> import torch
    >>> observed(torch.tensor([3.0, 5.0], requires_grad=True), torch.tensor([True, False])).requires_grad
    False
    """
    return w.detach()


def shrunk(w: Tensor, m: Tensor, threshold: Tensor) -> Tensor:
    """Return the kept weights shrunk towards zero by the threshold and rescaled per filter, without gradient.

    `w` [out, ...], `threshold` the magnitude below which weights were pruned (0-d). A filter that keeps the
    share r of its mean `|w|` is scaled by `1.01 / (r + 0.01)`; each element of a bias counts as a filter, and so does a
    0-d weight. Masks can be older than weights: a kept weight that has since fallen below the threshold becomes zero.
    In records of `st3` from before 2026-11-28 such a weight changed its sign instead; without such weights there is no
    difference. Source: ST-3, Vanderschueren & De Vleeschouwer 2023 (arXiv 2212.01076) and its code,
    github.com/vanderschuea/stthree, which chooses masks at every step and so has no such weights.

    >>> import torch
    >>> shrunk(torch.tensor([[3.0, -0.5]]), torch.tensor([[True, True]]), torch.tensor(1.0))[0].tolist()
    [2.0, -0.0]
    """
    fixed = w.detach()
    size = fixed.abs()
    each = (w.shape[:1].numel(), -1)
    share = ((size * m).reshape(each).mean(1) + 1e-6) / (size.reshape(each).mean(1) + 1e-6)
    scale = (1.01 / (share + 0.01)).view(w.shape[:1] + (1,) * (w.dim() - 1))
    return scale * (fixed.sgn() * (size - threshold).clamp(min=0)) * m


def soft_threshold(w: Tensor, m: Tensor, threshold: Tensor) -> Tensor:
    """Use the kept weights under a soft threshold (`shrunk`), but let the gradient reach every weight (gradient `g`).

    Shapes and source as in `dcil.rules.shrunk`.

    >>> import torch
    >>> w, m = torch.tensor([[3.0, -5.0, 1.0]]), torch.tensor([[True, True, False]])
    >>> [round(x, 2) for x in soft_threshold(w, m, torch.tensor(1.0))[0].tolist()]
    [2.25, -4.49, 0.0]
    """
    return w + (shrunk(w, m, threshold) - w.detach())


def soft_kept(w: Tensor, m: Tensor, threshold: Tensor) -> Tensor:
    """Use the kept weights under a soft threshold (`shrunk`) and train only them (gradient `g·m`).

    Shapes as in `dcil.rules.shrunk`. Source: this book; ST-3's forward in place of `kept`'s in DCIL's sparse pass.

    >>> import torch
    >>> w, m = torch.tensor([[3.0, -5.0, 1.0]], requires_grad=True), torch.tensor([[True, True, False]])
    >>> [round(x, 2) for x in soft_kept(w, m, torch.tensor(1.0))[0].tolist()]
    [2.25, -4.49, 0.0]
    >>> torch.autograd.grad(soft_kept(w, m, torch.tensor(1.0)).sum(), w)[0].tolist()
    [[1.0, 1.0, 0.0]]
    """
    live = w * m
    return shrunk(w, m, threshold) + (live - live.detach())


class Rule(NamedTuple):
    """A rule, the name of the network that its pass sees ("sparse", "dense", ...), and whether it takes a threshold."""

    apply: Callable[..., Tensor]
    sees: str
    takes_threshold: bool = False


#: Every rule by name.
RULES: dict[str, Rule] = {
    "kept": Rule(kept, "sparse"),
    "straight_through": Rule(straight_through, "sparse"),
    "faint": Rule(faint, "sparse"),
    "refined": Rule(refined, "dense"),
    "dense": Rule(dense, "dense"),
    "pruned_only": Rule(pruned_only, "pruned"),
    "twin": Rule(dense, "twin"),  # a second dense pass needs a name of its own
    "observed": Rule(observed, "dense"),
    "soft_threshold": Rule(soft_threshold, "sparse", takes_threshold=True),
    "soft_kept": Rule(soft_kept, "sparse", takes_threshold=True),
}


def are_soft(names: Iterable[str]) -> bool:
    """Return whether any of the rules takes a soft threshold: the size of the largest pruned weight of all layers.

    >>> are_soft(["kept", "refined"]), are_soft(["soft_kept", "refined"])
    (False, True)
    """
    return any(RULES[name].takes_threshold for name in names)
