"""Each training method as a small composition: its passes, its loss, and when masks are chosen.

A method is a row of `METHODS`. Adding one is writing the piece in which it differs from a
neighbour; the training loop does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from dcil.errors import unknown
from dcil.losses import collective_parts
from dcil.masks import cubic_sparsity

if TYPE_CHECKING:
    from dcil.config import RunConfig


# --- when masks are chosen: the sparsity to set before this step, or None to leave them alone


def never(config: RunConfig, epoch: int, step: int) -> float | None:
    """Never prune."""
    return None


def once(config: RunConfig, epoch: int, step: int) -> float | None:
    """Prune to the final sparsity before the first step, from the initial weights, and never again."""
    return config.sparsity if step == 0 else None


def scheduled(config: RunConfig, epoch: int, step: int) -> float | None:
    """Choose anew every `mask_period` steps, at the cubic schedule's sparsity (the authors' code)."""
    if step % config.mask_period:
        return None
    return cubic_sparsity(epoch, config.sparsity, config.ramp_end)


# --- phases: all that a step's computation depends on besides its batch and the weights. Steps of one
# phase are one computation, so that it can be captured once and replayed (`dcil.engine`)


def always(config: RunConfig, epoch: int, step: int) -> Hashable:
    """The same computation at every step."""
    return None


def distilling(config: RunConfig, epoch: int, step: int) -> bool:
    """Whether the passes teach each other yet: from epoch `distill_from` on (the authors' code)."""
    return epoch >= config.distill_from


# --- losses: named terms whose sum is minimised, from the logits [N, C] of each pass


def supervised(logits: dict[str, Tensor], labels: Tensor, config: RunConfig, phase: Hashable) -> dict[str, Tensor]:
    """Cross-entropy of each pass."""
    return {f"ce_{name}": F.cross_entropy(output, labels) for name, output in logits.items()}


def collective(logits: dict[str, Tensor], labels: Tensor, config: RunConfig, phase: bool) -> dict[str, Tensor]:
    """Cross-entropy of both passes and, in the phase `distilling`, what they teach each other."""
    return collective_parts(logits["sparse"], logits["dense"], labels, config.temperature, distill=phase)


@dataclass(frozen=True)
class Method:
    """One way of training: `rules` (a gradient rule per pass), `masks`, `loss` and its `phase`, and its source."""

    name: str
    rules: tuple[str, ...]
    masks: Callable[[RunConfig, int, int], float | None]
    loss: Callable[[dict[str, Tensor], Tensor, RunConfig, Any], dict[str, Tensor]]
    summary: str
    source: str
    phase: Callable[[RunConfig, int, int], Hashable] = always

    @property
    def prunes(self) -> bool:
        """Whether this method ends with fewer weights than it began with."""
        return self.masks is not never


METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("dense", ("dense",), never, supervised, "no pruning", "the usual training"),
        Method("static", ("kept",), once, supervised, "one mask, by size at initialisation", "control of this book"),
        Method("ste", ("straight_through",), scheduled, supervised, "dynamic masks, straight-through gradient",
               "DPF, Lin et al. 2020; the authors' path type 2"),
        Method("dcil", ("kept", "refined"), scheduled, collective, "dynamic masks, refined gradient, mutual loss",
               "arXiv 2109.04660 and the authors' code", distilling),
    )
}  # fmt: skip


def get(name: str) -> Method:
    """Return a method by name; raises `DcilError` with the nearest name for an unknown one."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]
