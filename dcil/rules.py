"""Gradient rules: what a pass sees of the shared weights, and which weights its gradient reaches.

With weights `w`, a mask `m` (1 = kept) and `g` the gradient with respect to the value that the
layer used, each rule is one line of stop-gradient algebra:

| rule             | forward  | gradient reaching w | used by                           |
|------------------|----------|---------------------|-----------------------------------|
| kept             | w·m      | g·m                 | static masks, DCIL's sparse pass  |
| straight_through | w·m      | g                   | DPF / STE                         |
| refined          | w        | g·(1−m)             | DCIL's dense pass                 |
| dense            | w        | g                   | dense training, ablation          |
| pruned_only      | w·(1−m)  | g·(1−m)             | ablation                          |

The forward values are exact, not merely close: for a binary mask every sum below adds a zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


def kept(w: Tensor, m: Tensor) -> Tensor:
    """Use the kept weights and train only them (`w·m`, gradient `g·m`); any shape, `m` boolean."""
    return w * m


def straight_through(w: Tensor, m: Tensor) -> Tensor:
    """Use the kept weights but give every weight the gradient found there (`w·m`, gradient `g`).

    Source: Bengio et al. 2013 for the estimator, Lin et al. 2020 (DPF) for its use in pruning.
    """
    return w + (w * m - w).detach()


def refined(w: Tensor, m: Tensor) -> Tensor:
    """Use all weights but train only the pruned ones (`w`, gradient `g·(1−m)`).

    Source: DCIL's refined gradient (arXiv 2109.04660); the authors' "full" path.
    """
    return w * m.logical_not() + (w * m).detach()


def dense(w: Tensor, m: Tensor) -> Tensor:
    """Use and train every weight; the mask plays no part (`w`, gradient `g`)."""
    return w


def pruned_only(w: Tensor, m: Tensor) -> Tensor:
    """Use and train only the weights that the mask removes (`w·(1−m)`, gradient `g·(1−m)`)."""
    return w * m.logical_not()


def observed(w: Tensor, m: Tensor) -> Tensor:
    """Use all weights and train none of them (`w`, gradient 0): a dense teacher whose norms and head still learn."""
    return w.detach()


def soft_threshold(w: Tensor, m: Tensor, threshold: Tensor) -> Tensor:
    """Use the kept weights, pulled towards zero by the threshold and scaled up again by filter; gradient `g` to all.

    `w` [out, ...], `threshold` the size below which weights were pruned (0-d). A filter that keeps the
    share r of its mean |w| is scaled by 1.01 / (r + 0.01). Source: ST-3, Vanderschueren & De Vleeschouwer
    2023 (arXiv 2212.01076) and its code, github.com/vanderschuea/stthree.
    """
    fixed = w.detach()
    size = fixed.abs()
    share = ((size * m).flatten(1).mean(1) + 1e-6) / (size.flatten(1).mean(1) + 1e-6)
    scale = (1.01 / (share + 0.01)).view(-1, *[1] * (w.dim() - 1))
    return w + (scale * (fixed - fixed.sign() * threshold) * m - fixed)


class Rule(NamedTuple):
    """A rule, the name of the network it sees ("sparse", "dense", ...), and whether it asks for the threshold."""

    apply: Callable[..., Tensor]
    sees: str
    takes_threshold: bool = False


RULES: dict[str, Rule] = {
    "kept": Rule(kept, "sparse"),
    "straight_through": Rule(straight_through, "sparse"),
    "refined": Rule(refined, "dense"),
    "dense": Rule(dense, "dense"),
    "pruned_only": Rule(pruned_only, "pruned"),
    "twin": Rule(dense, "twin"),  # a second dense pass, so that two of them have names
    "observed": Rule(observed, "dense"),
    "soft_threshold": Rule(soft_threshold, "sparse", takes_threshold=True),
}
