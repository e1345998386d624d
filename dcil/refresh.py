"""Mask policies, which say when and how a method's masks change, and the refresh that carries out a change."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dcil.dual_path import DualPath, put_masks
from dcil.errors import DcilError
from dcil.masks import compute_masks, cubic_sparsity, drop_and_grow, random_masks

# The dense gradient of each prunable weight where the sparse network stands, by name.
Gradients = Callable[[], dict[str, Tensor]]
Masks = dict[str, Tensor]

REGROW_PERIOD, REGROW_SHARE = 100, 0.3  # RigL's ΔT and α (Evci et al. 2020)
PRUNE_PERIOD = 100  # Δt of gradual magnitude pruning: "between 100 and 1000 training steps" (Zhu & Gupta 2017)


class Schedule(Protocol):
    """What of a run's configuration decides its masks; a `dcil.config.ResolvedConfig` is one."""

    @property
    def method(self) -> str: ...
    @property
    def sparsity(self) -> float: ...
    @property
    def scope(self) -> str: ...
    @property
    def score(self) -> str: ...
    @property
    def epochs(self) -> int: ...
    @property
    def ramp_end(self) -> int: ...
    @property
    def mask_period(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Change:
    """What to do now: the `sparsity` to end at, `how` (of `WAYS`), and the `share` of kept weights to exchange."""

    sparsity: float
    how: str = "largest"
    share: float = 0.0


#: The change to make before a step (config, epoch, step), or None to leave the masks alone. `epoch` counts what is
#: trained by then, parts of an epoch included: 1.5 is the middle of the second, so a schedule can move at every step.
Policy = Callable[[Schedule, float, int], Change | None]


def require_target(policy: Policy, config: Schedule, steps_per_epoch: int) -> None:
    """Raise `DcilError` for a run whose last mask refresh would not reach its configured sparsity."""
    total = config.epochs * steps_per_epoch
    changes = (policy(config, step / steps_per_epoch, step) for step in reversed(range(total)))
    last = next((change.sparsity for change in changes if change), 0.0)
    if last == config.sparsity:
        return
    at, left = config.ramp_end * steps_per_epoch, total - config.ramp_end * steps_per_epoch
    if left <= 0:
        why = (
            f"ramp_end is {config.ramp_end}, and with {config.epochs} epochs that is never reached; "
            f"lower --ramp-end to {config.epochs - 1} or less, or train for longer"
        )
    else:
        why = (
            f"the ramp ends at step {at} of {total}, and no multiple of mask_period {config.mask_period} is left; "
            f"lower --mask-period to {left} or less, or train for longer"
        )
    raise DcilError(f"{config.method} would end at sparsity {last:.6g}, not {config.sparsity:g}: {why}")


# --- policies


def never(config: Schedule, epoch: float, step: int) -> Change | None:
    """Never prune."""
    return None


def once(how: str) -> Policy:
    """Prune to the final sparsity before the first step and never again."""

    def policy(config: Schedule, epoch: float, step: int) -> Change | None:
        return Change(config.sparsity, how) if step == 0 else None

    return policy


def scheduled(config: Schedule, epoch: float, step: int) -> Change | None:
    """Choose anew every `mask_period` steps, at the cubic schedule's sparsity for the epoch (the authors' code)."""
    if step % config.mask_period:
        return None
    return Change(cubic_sparsity(int(epoch), config.sparsity, config.ramp_end))


def stepwise(config: Schedule, epoch: float, step: int) -> Change | None:
    """Choose anew before every step, at the cubic schedule's sparsity for that step (ST-3).

    Source: Vanderschueren & De Vleeschouwer 2023 and their code, github.com/vanderschuea/stthree. They choose after
    each step, which is the same but for what is tested: here its masks are one step old. Their schedule rises from
    epoch 5 to 80 of 160; here it is the run's, from the first step to `ramp_end`. Their threshold lies between the
    largest pruned weight and the smallest kept one; here it is the largest pruned one. They prune the classifier too,
    take no Nesterov momentum and no decay of norms, and after the end fix the masks and train ten epochs more
    (on ImageNet all of them again).
    """
    return Change(cubic_sparsity(epoch, config.sparsity, config.ramp_end))


def shrinking(config: Schedule, epoch: float, step: int) -> Change | None:
    """As `scheduled`, but what is pruned stays pruned: gradual magnitude pruning as this book first ran it."""
    change = scheduled(config, epoch, step)
    return change and Change(change.sparsity, "shrink")


def gradual(config: Schedule, epoch: float, step: int) -> Change | None:
    """Prune every Δt steps up to the end of the ramp, and there, at the cubic schedule's sparsity for that step.

    What is pruned stays pruned, and from the end of the ramp on masks stay as they are. Source: gradual magnitude
    pruning, Zhu & Gupta 2017 (arXiv 1710.01878). They begin after some epochs or with a trained network, here the ramp
    begins at the first step; they prune every layer alike, here `scope` says over what the threshold is taken, by
    default over all layers. In their library a pruned weight keeps its value and could return, where kept ones
    shrink below it.
    """
    if epoch > config.ramp_end or (step % PRUNE_PERIOD and epoch != config.ramp_end):
        return None
    return Change(cubic_sparsity(epoch, config.sparsity, config.ramp_end), "shrink")


def one_shot(config: Schedule, epoch: float, step: int) -> Change | None:
    """Train densely up to epoch `ramp_end`, prune once, go on with that mask (Han et al. 2015, one round)."""
    return None if epoch < config.ramp_end else Change(config.sparsity, "hold")


def alternating(config: Schedule, epoch: float, step: int) -> Change | None:
    """Dense for a tenth of the epochs, then sparse and dense by turns of a twentieth, sparse from 85 % on.

    Each sparse turn has one mask, chosen as it begins. Source: AC/DC, Peste et al. 2021 (arXiv
    2106.12379), its ImageNet schedule as shares of the epochs, turns rounded to at least one epoch;
    the last epoch is sparse, however few there are.
    """
    epoch = int(epoch)
    warmup, turn = max(1, round(0.10 * config.epochs)), max(1, round(0.05 * config.epochs))
    is_last = epoch >= min(0.85 * config.epochs, config.epochs - 1)
    is_turn = epoch >= warmup and (epoch - warmup) // turn % 2 == 0
    return Change(config.sparsity if is_last or is_turn else 0.0, "hold")


def regrowing(how: str, by_step: bool = False) -> Policy:
    """Start sparse at random, then exchange weights every ΔT steps up to epoch `ramp_end`, ever fewer of them.

    The share falls from α to 0 on a cosine, of whole epochs or `by_step` (RigL; SET exchanges a constant share, for
    which this is kept too, so that the two differ in the growth alone).

    Source: RigL, Evci et al. 2020 (arXiv 1911.11134) and its code, github.com/google-research/rigl. For shorter and
    longer training that scales the end of the exchanges with the steps, and neither ΔT nor α, as here; its end on
    CIFAR is at 77 % of the steps, here at `ramp_end` (75 %). There a step that exchanges weights takes no gradient
    step, and the first such step is step 0, here step ΔT. There the momentum of what grows is set to 0; here it is what
    ΔT steps without a gradient have left of it. There a noise of 1e-5 breaks ties among the smallest weights. There the
    CIFAR script leaves the first convolution dense and prunes the classifier; here every convolution has its ERK share
    and the classifier is dense.
    """

    def policy(config: Schedule, epoch: float, step: int) -> Change | None:
        if step == 0:
            return Change(config.sparsity, "random_erk")
        if step % REGROW_PERIOD or epoch >= config.ramp_end:
            return None
        at = epoch if by_step else int(epoch)
        share = REGROW_SHARE / 2 * (1 + math.cos(math.pi * at / config.ramp_end))
        return Change(config.sparsity, how, share)

    return policy


# --- ways: the new masks of a change


def _chosen(dual: DualPath, weights: Mapping[str, Tensor], change: Change, config: Schedule) -> Masks:
    return compute_masks(weights, change.sparsity, config.scope, config.score, dual.transposed)


def _largest(dual: DualPath, change: Change, config: Schedule, step: int, gradients: Gradients) -> Masks:
    """The largest scores over all weights, revived ones included."""
    return _chosen(dual, dual.weights, change, config)


def _shrink(dual: DualPath, change: Change, config: Schedule, step: int, gradients: Gradients) -> Masks:
    """The largest scores among the weights still kept."""
    masks = dual.masks
    remaining = {name: w.detach() * masks[name] for name, w in dual.weights.items()}
    return _chosen(dual, remaining, change, config)


def _hold(dual: DualPath, change: Change, config: Schedule, step: int, gradients: Gradients) -> Masks | None:
    """A new choice only when the sparsity asked for is another, else None; at 0 every weight is back."""
    if change.sparsity == dual.target_sparsity:
        return None
    if change.sparsity == 0:
        return {name: torch.ones_like(mask) for name, mask in dual.masks.items()}
    return _largest(dual, change, config, step, gradients)


def _random(spread: str) -> Callable[..., Masks]:
    def draw(dual: DualPath, change: Change, config: Schedule, step: int, gradients: Gradients) -> Masks:
        return random_masks(dual.weights, change.sparsity, spread, generator_of(config, step))

    return draw


def _regrow(grow: str, returning: bool = False) -> Callable[..., Masks]:
    def exchange(dual: DualPath, change: Change, config: Schedule, step: int, gradients: Gradients) -> Masks:
        masks = dual.masks
        if grow == "gradient":
            growth = {name: g.abs() for name, g in gradients().items()}
        else:
            generator = generator_of(config, step)
            growth = {n: torch.rand(m.shape, generator=generator).to(m.device) for n, m in masks.items()}
        after = {n: drop_and_grow(w, masks[n], change.share, growth[n], returning) for n, w in dual.weights.items()}
        for name, weight in dual.weights.items():  # what grows starts at zero, what returns goes on
            weight.data.mul_(masks[name] & after[name])
        return after

    return exchange


WAYS: dict[str, Callable[..., Masks | None]] = {
    "largest": _largest,
    "shrink": _shrink,
    "hold": _hold,
    "random_uniform": _random("uniform"),
    "random_erk": _random("erk"),
    "regrow_random": _regrow("random"),
    "regrow_gradient": _regrow("gradient"),
    "regrow_returning": _regrow("gradient", returning=True),
}


def generator_of(config: Schedule, step: int) -> torch.Generator:
    """Return a generator that depends on the run's seed and the step only, so that a resumed run draws the same."""
    return torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 2 + 1)


def require_kept(dual: DualPath, config: Schedule) -> None:
    """Raise `DcilError` for a run whose final masks would keep no weight."""
    if not any(mask.any() for mask in _chosen(dual, dual.weights, Change(config.sparsity), config).values()):
        raise DcilError(
            f"sparsity {config.sparsity:g} with the scope {config.scope!r} leaves no weight of this network; lower "
            "--sparsity, or take the scope 'global'"
        )


@torch.no_grad()
def refresh(dual: DualPath, change: Change, config: Schedule, step: int, gradients: Gradients) -> Tensor | None:
    """Carry out a change, in place and on the device; returns the number of mask flips (0-d tensor).

    Returns None if the masks stay: "hold" is asked at every step and changes them at few.
    """
    masks = WAYS[change.how](dual, change, config, step, gradients)
    return None if masks is None else put_masks(dual, masks, change.sparsity)
