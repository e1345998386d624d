"""Mask policies, which say when and how a method's masks change, and the refresh that applies a change."""

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

# The dense gradient of each prunable weight at the sparse network, by name.
Gradients = Callable[[], dict[str, Tensor]]
Masks = dict[str, Tensor]

REGROW_PERIOD, REGROW_SHARE = 100, 0.3  # RigL's ΔT and α (Evci et al. 2020)
PRUNE_PERIOD = 100  # Δt of gradual magnitude pruning: "between 100 and 1000 training steps" (Zhu & Gupta 2017)


class Schedule(Protocol):
    """The fields of a run's configuration that determine its masks; `dcil.config.ResolvedConfig` has them."""

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
    """A change of masks: the new `sparsity`, `how` (a key of `WAYS`), and the `share` of kept weights to exchange."""

    sparsity: float
    how: str = "largest"
    share: float = 0.0


#: Maps (config, epoch, step) to the change to make before that step, or None to leave the masks alone. `epoch` is the
#: number of epochs trained by then, a fraction, so that a schedule can change at every step: 1.5 is the middle of the
#: second epoch.
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
    """Choose new masks every `mask_period` steps, at the cubic schedule's sparsity of the epoch (the authors' code)."""
    if step % config.mask_period:
        return None
    return Change(cubic_sparsity(int(epoch), config.sparsity, config.ramp_end))


def stepwise(config: Schedule, epoch: float, step: int) -> Change | None:
    """Choose new masks before every step, at the cubic schedule's sparsity of that step (ST-3).

    Source: Vanderschueren & De Vleeschouwer 2023 and their code, github.com/vanderschuea/stthree. They choose masks
    after each step, which differs only in evaluation: here the evaluated masks are one step old. Their sparsity rises
    from epoch 5 to epoch 80 of 160; here it rises from the first step to `ramp_end`. Their threshold lies between the
    largest pruned and the smallest kept weight; here it is the largest pruned weight. They also prune the classifier,
    use neither Nesterov momentum nor weight decay on norms, and finally fix the masks and train for ten more epochs
    (on ImageNet, for all epochs again).
    """
    return Change(cubic_sparsity(epoch, config.sparsity, config.ramp_end))


def shrinking(config: Schedule, epoch: float, step: int) -> Change | None:
    """As `scheduled`, but pruned weights stay pruned: gradual magnitude pruning as this book first ran it."""
    change = scheduled(config, epoch, step)
    return change and Change(change.sparsity, "shrink")


def gradual(config: Schedule, epoch: float, step: int) -> Change | None:
    """Prune every Δt steps of the ramp and at its end, at the cubic schedule's sparsity of that step.

    Pruned weights stay pruned, and masks stay fixed after the ramp. Source: gradual magnitude pruning,
    Zhu & Gupta 2017 (arXiv 1710.01878). They start after some epochs or with a trained network; here the ramp
    starts at the first step. They prune every layer to the same sparsity; here the threshold is taken over the run's
    `scope`, by default over all layers. In their library a pruned weight keeps its value and can return if kept weights
    shrink below it.
    """
    if epoch > config.ramp_end or (step % PRUNE_PERIOD and epoch != config.ramp_end):
        return None
    return Change(cubic_sparsity(epoch, config.sparsity, config.ramp_end), "shrink")


def one_shot(config: Schedule, epoch: float, step: int) -> Change | None:
    """Train dense up to epoch `ramp_end`, prune once, then keep that mask (Han et al. 2015, one round)."""
    return None if epoch < config.ramp_end else Change(config.sparsity, "hold")


def alternating(config: Schedule, epoch: float, step: int) -> Change | None:
    """Train dense for 10 % of the epochs, then alternate sparse and dense phases of 5 %, sparse from 85 % on.

    Each sparse phase has one mask, chosen at its start. Source: AC/DC, Peste et al. 2021 (arXiv
    2106.12379), its ImageNet schedule as fractions of the epochs, with phases rounded to at least one epoch;
    the last epoch is always sparse, however short the run.
    """
    epoch = int(epoch)
    warmup, turn = max(1, round(0.10 * config.epochs)), max(1, round(0.05 * config.epochs))
    is_last = epoch >= min(0.85 * config.epochs, config.epochs - 1)
    is_turn = epoch >= warmup and (epoch - warmup) // turn % 2 == 0
    return Change(config.sparsity if is_last or is_turn else 0.0, "hold")


def regrowing(how: str, by_step: bool = False) -> Policy:
    """Start from random masks, then exchange a shrinking share of weights every ΔT steps up to epoch `ramp_end`.

    The share follows a cosine from α to 0, updated every epoch or, with `by_step`, every step (RigL; SET exchanges a
    constant share, but here it has the cosine too, so that the two methods differ only in growth).

    Source: RigL, Evci et al. 2020 (arXiv 1911.11134) and its code, github.com/google-research/rigl. For shorter and
    longer training, RigL scales the end of the exchanges with the number of steps and leaves ΔT and α alone, as here.
    Differences: RigL's exchanges end at 77 % of the steps on CIFAR, here at `ramp_end` (75 %). A step that exchanges
    weights takes no gradient step in RigL, and the first such step is step 0, here step ΔT. RigL sets the momentum of
    grown weights to 0; here it has decayed for ΔT steps without a gradient. RigL adds noise of 1e-5 to break ties among
    the smallest weights. RigL's CIFAR script leaves the first convolution dense and prunes the classifier; here every
    convolution has its ERK share and the classifier is dense.
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
    """Keep the largest scores among all weights; pruned ones can return."""
    return _chosen(dual, dual.weights, change, config)


def _shrink(dual: DualPath, change: Change, config: Schedule, step: int, gradients: Gradients) -> Masks:
    """Keep the largest scores among the weights still kept."""
    masks = dual.masks
    remaining = {name: w.detach() * masks[name] for name, w in dual.weights.items()}
    return _chosen(dual, remaining, change, config)


def _hold(dual: DualPath, change: Change, config: Schedule, step: int, gradients: Gradients) -> Masks | None:
    """Choose new masks only if the target sparsity changes, else return None; at sparsity 0 keep every weight."""
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
        for name, weight in dual.weights.items():  # grown weights start at zero, returning ones keep their value
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
    """Return a generator seeded by the run's seed and the step only, so that a resumed run draws the same numbers."""
    return torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 2 + 1)


def require_kept(dual: DualPath, config: Schedule) -> None:
    """Raise `DcilError` if the run's target sparsity, with its scope, leaves no weight of the network or of a layer."""
    _chosen(dual, dual.weights, Change(config.sparsity), config)


@torch.no_grad()
def refresh(dual: DualPath, change: Change, config: Schedule, step: int, gradients: Gradients) -> Tensor | None:
    """Apply a change of masks, in place and on the device; returns the number of mask flips (0-d tensor).

    Returns None if the masks stay: "hold" is applied at every step and changes them at few.
    """
    masks = WAYS[change.how](dual, change, config, step, gradients)
    return None if masks is None else put_masks(dual, masks, change.sparsity)
