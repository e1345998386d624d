"""Each training method as a small composition: its passes, its loss, and when masks are chosen.

A method is a row of `ROWS`. To add one, write the piece in which it differs from an existing
method; the training loop does not change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol

from torch import Tensor

from dcil.errors import unknown
from dcil.losses import cross_entropies, divergences
from dcil.refresh import (
    Policy,
    alternating,
    gradual,
    never,
    once,
    one_shot,
    regrowing,
    scheduled,
    shrinking,
    stepwise,
)
from dcil.rules import RULES


class Phase(NamedTuple):
    """Everything that a step's computation depends on besides its batch and the weights.

    All steps of a phase run the same computation, captured once and replayed (`dcil.engine`). `mutual` is
    the weight of the passes' mutual distillation, `passes` the number of passes that run.
    """

    mutual: float = 0.0
    passes: int = 2


class Objective(Protocol):
    """The fields of a run's configuration that determine its loss; `dcil.config.ResolvedConfig` has them."""

    @property
    def distill_from(self) -> int: ...
    @property
    def distill_warmup(self) -> int: ...
    @property
    def dense_every(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def label_smoothing(self) -> float: ...


def phase_of(config: Objective, epoch: int, step: int) -> Phase:
    """Return the phase of a step.

    Mutual distillation starts at epoch `distill_from` (the authors' code) and reaches its full weight
    after `distill_warmup` further epochs; the second pass runs at every `dense_every`-th step.
    """
    rise = (epoch - config.distill_from + 1) / (config.distill_warmup + 1)
    return Phase(min(max(rise, 0.0), 1.0), 2 if step % config.dense_every == 0 else 1)


# --- losses: named terms whose sum is minimised, from the logits [N, C] of each pass that ran


def supervised(logits: dict[str, Tensor], labels: Tensor, config: Objective, phase: Phase) -> dict[str, Tensor]:
    """Return the cross-entropy of each pass."""
    return cross_entropies(logits, labels, config.label_smoothing)


def mutual(
    logits: dict[str, Tensor],
    labels: Tensor,
    config: Objective,
    phase: Phase,
    learners: tuple[str, ...] | None = None,
    detach: bool = True,
) -> dict[str, Tensor]:
    """Return the cross-entropy of both passes and their mutual distillation, weighted by `phase.mutual`.

    `learners` names the students, by default both passes; with `detach=False` the teacher gets a gradient
    too, towards its student.
    """
    parts = cross_entropies(logits, labels, config.label_smoothing)
    if len(logits) == 2 and phase.mutual:
        terms = divergences(logits, config.temperature, learners, detach)
        parts |= {name: phase.mutual * term for name, term in terms.items()}
    return parts


@dataclass(frozen=True)
class Method:
    """A training method.

    `rules` has the gradient rule of each pass, `masks` is the policy of when and how masks change (`dcil.refresh`),
    `loss` the objective to minimise, `own` the modules that each pass has its own copy of (a key of `dcil.parts.OWN`).
    `scored` is True if masks keep the highest scores by the run's `scope` and `score`; other methods keep a share of
    each layer. `clip` is the largest norm of a step's gradient over all parameters; a larger gradient is scaled down
    to it. `ablates` names the method that this one is an ablation of: identical except for one piece.
    """

    name: str
    rules: tuple[str, ...]
    masks: Policy
    loss: Callable[[dict[str, Tensor], Tensor, Objective, Phase], dict[str, Tensor]]
    summary: str
    source: str
    own: str = "norms and head"
    scored: bool = True
    clip: float | None = None
    ablates: str = ""

    @property
    def passes(self) -> tuple[str, ...]:
        """The name of each pass, after the network that it sees; the first pass is the deployed one."""
        return tuple(RULES[rule].sees for rule in self.rules)

    @property
    def teaches(self) -> bool:
        """Whether the loss can have mutual terms; a loss of your own is taken to have them."""
        return self.loss is not supervised

    @property
    def prunes(self) -> bool:
        """Whether this method ends with fewer weights than it started with."""
        return self.masks is not never


# DCIL; each of its ablations differs from it in one piece.
DCIL = Method("dcil", ("kept", "refined"), scheduled, mutual, "dynamic masks, refined gradient, mutual loss",
              "arXiv 2109.04660 and the authors' code")  # fmt: skip
ablation = partial(replace, DCIL, ablates="dcil")
BOOK, PATHS = "control of this book", "a path type in the authors' code, in none of their scripts"

# A rival's first row is the method that its records ran. Where that is not its source's method, a second row follows
# the source, except for the differences that the docstring of its mask policy lists.
ROWS = (
    Method("dense", ("dense",), never, supervised, "no pruning", "the usual training"),
    Method("static", ("kept",), once("largest"), supervised, "one mask, by size at initialisation", BOOK),
    Method("random", ("kept",), once("random_uniform"), supervised, "one random mask, every layer alike", BOOK,
           scored=False),
    Method("random_erk", ("kept",), once("random_erk"), supervised, "one random mask, small layers denser",
           "Evci et al. 2020 (static ERK)", scored=False),
    Method("one_shot", ("kept",), one_shot, supervised, "dense, pruned once, then finetuned", "Han et al. 2015"),
    Method("gmp", ("kept",), shrinking, supervised,
           "gradual magnitude pruning as first run here: a jump of sparsity an epoch", "Zhu & Gupta 2017"),
    Method("gmp_stepwise", ("kept",), gradual, supervised,
           "gradual magnitude pruning: every 100 steps, sparsity by the step", "Zhu & Gupta 2017"),
    Method("set", ("kept",), regrowing("regrow_random"), supervised, "sparse from the start, random regrowth",
           "Mocanu et al. 2018", scored=False),
    Method("rigl", ("kept",), regrowing("regrow_gradient"), supervised,
           "RigL as first run here: regrowth by gradient, what was just dropped stays out", "Evci et al. 2020",
           scored=False),
    Method("rigl_returning", ("kept",), regrowing("regrow_returning", by_step=True), supervised,
           "RigL: regrowth by gradient, what was just dropped may return", "Evci et al. 2020 and the released code",
           scored=False),
    Method("ste", ("straight_through",), scheduled, supervised, "dynamic masks, straight-through gradient",
           "DPF, Lin et al. 2020; the authors' path type 2"),
    Method("st3", ("soft_threshold",), scheduled, supervised,
           "ST-3 as first run here: soft threshold, rescaled; masks every 16 steps, no clipping",
           "Vanderschueren & De Vleeschouwer 2023"),
    Method("st3_stepwise", ("soft_threshold",), stepwise, supervised,
           "ST-3: soft threshold, rescaled; masks and sparsity at every step, gradient clipped",
           "Vanderschueren & De Vleeschouwer 2023 and the released code", clip=3.0),
    Method("kept_only", ("kept",), scheduled, supervised, "dynamic masks, pruned weights get no gradient", BOOK),
    Method("ste_tenth", ("faint",), scheduled, supervised, "STE with a tenth of the gradient for pruned weights", BOOK,
           ablates="ste"),
    Method("acdc", ("kept",), alternating, supervised, "sparse and dense by turns", "Peste et al. 2021"),
    Method("self_distill", ("dense", "twin"), never, mutual, "no pruning, two passes teach each other", BOOK),
    # Its masks are those of `gmp`, so that the two differ only in the teacher.
    Method("gmp_distill", ("kept", "dense"), shrinking, mutual,
           "gradual magnitude pruning (gmp) taught by its own dense pass, which learns from it too", BOOK),
    Method("ste_split", ("straight_through", "observed"), scheduled, mutual,
           "STE with DCIL's norms, heads and mutual loss", BOOK, ablates="ste"),
    Method("ste_split_ce", ("straight_through", "observed"), scheduled, supervised,
           "STE with DCIL's norms and heads, no mutual loss", BOOK, ablates="ste"),
    DCIL,
    ablation(name="dcil_soft", rules=("soft_kept", "refined"),
            summary="DCIL, ST-3's soft threshold in the sparse pass", source=BOOK),
    ablation(name="dcil_no_mutual", loss=supervised, summary="DCIL without the mutual loss", source=BOOK),
    ablation(name="dcil_sparse_learns", loss=partial(mutual, learners=("sparse",)),
            summary="DCIL, only the sparse pass learns from the other", source=BOOK),
    ablation(name="dcil_dense_learns", loss=partial(mutual, learners=("dense",)),
            summary="DCIL, only the dense pass learns from the other", source=BOOK),
    ablation(name="dcil_not_detached", loss=partial(mutual, detach=False),
            summary="DCIL, teachers move towards their pupils too", source=BOOK),
    ablation(name="dcil_shared_norms", own="head", summary="DCIL, one set of norms for both passes", source=BOOK),
    ablation(name="dcil_shared_head", own="norms", summary="DCIL, one classifier for both passes", source=PATHS),
    ablation(name="dcil_shared", own="nothing", summary="DCIL, one set of norms and one classifier", source=BOOK),
    ablation(name="dcil_dense_all", rules=("kept", "dense"),
            summary="DCIL, the dense pass trains every weight", source=PATHS),
    ablation(name="dcil_pruned_pass", rules=("kept", "pruned_only"),
            summary="DCIL, the second pass sees the pruned weights alone", source=PATHS),
)  # fmt: skip
#: Every method by name.
METHODS: dict[str, Method] = {method.name: method for method in ROWS}


def get(name: str) -> Method:
    """Return a method by name; raises `dcil.DcilError` with the nearest name for an unknown one.

    >>> get("dcil").rules, get("dcil").prunes
    (('kept', 'refined'), True)
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]
