"""How masks and gradients evolve while a run trains: cheap enough to be always measured, and kept in the record.

Masks are compared on a sample of positions, every `stride`-th of all prunable weights in order, so
that checkpoints and records stay small for large networks; up to `SAMPLE` weights the sample is all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dcil.config import ResolvedConfig
from dcil.dual_path import DualPath
from dcil.errors import DcilError
from dcil.io.bits import MOST, from_text, pack, to_text, unpack
from dcil.masks import filters_first, over_filters

Booleans = TypeVar("Booleans", Tensor, np.ndarray)

SAMPLE = MOST  # most positions; ResNet-32 has 463,792 prunable weights
MOMENTS = 16  # epochs of a run at which the costlier measures are taken


def moments(epochs: int) -> list[int]:
    """Return the epochs after which masks are stored and gradients compared: at most `MOMENTS`, including the last.

    In a run of 16 epochs that is every epoch: two extra forward and backward passes per 391 steps of CIFAR.
    """
    count = min(MOMENTS, epochs)
    return sorted({epochs * (i + 1) // count - 1 for i in range(count)})


def control_epochs(epochs: int) -> list[int]:
    """Return the epochs after which accuracy is also measured with re-estimated norm statistics: middle and end."""
    return sorted({max(epochs // 2 - 1, 0), epochs - 1})


def stride_of(count: int) -> int:
    """Return the distance between neighbouring sampled positions of `count` weights."""
    return -(-count // SAMPLE)


def sample(masks: Mapping[str, Tensor]) -> Tensor:
    """Return the masks at the sampled positions as one boolean vector, on their device."""
    everything = torch.cat([mask.flatten() for mask in masks.values()])
    return everything[:: stride_of(len(everything))]


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Return `|A∩B| / |A∪B|` of two boolean vectors: 1 for the same weights kept, 0 for none in common."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def final_mask(record: dict[str, Any]) -> np.ndarray | None:
    """Return the sampled final mask of a record as a boolean vector, or None if the record has none.

    Raises `DcilError` when the mask cannot be decoded.
    """
    if not (held := record.get("masks")):
        return None
    try:
        return from_text(held["final"], held["count"])
    except (KeyError, TypeError, ValueError) as error:
        raise DcilError(f"the final mask in the record {record.get('run_id')} cannot be read: {error}") from error


def mask_problems(record: dict[str, Any]) -> list[str]:
    """Return where the masks of a record contradict its curve or its network's size.

    Raises `DcilError` when the final mask cannot be decoded.
    """
    held, curve = record["masks"], record["curve"]
    measured = [row["epoch"] for row in held["overlap_with_last"]]
    if not measured:
        return ["masks.overlap_with_last is empty: it must end with the final mask"]
    if measured != sorted({*measured}) or measured[-1] >= len(curve):
        return ["masks.overlap_with_last must name epochs of the curve, in their order"]
    if (held["count"] - 1) * held["stride"] >= record["cost"]["num_params"]:
        return [f"masks has {held['count']} positions {held['stride']} apart, more than the network has weights"]
    if stride_of(held["count"] * held["stride"]) < held["stride"]:
        return [f"masks.stride is {held['stride']}, though a sample of {SAMPLE} positions would have room for more"]
    mask = final_mask(record)
    assert mask is not None
    if held["stride"] == 1 and abs(1 - mask.mean() - curve[measured[-1]]["sparsity"]) > 1e-6:
        return ["the final mask does not have the sparsity that the curve says"]
    return []


def empty_channels(mask: Booleans) -> Booleans:
    """Return for each output channel of a mask [out, ...] whether it keeps no weight, boolean [out]."""
    rows: Any = mask.reshape(len(mask), -1)
    return ~rows.any(1)


def compare_gradients(straight: Mapping[str, Tensor], whole: Mapping[str, Tensor], dual: DualPath) -> dict[str, float]:
    """Return how two gradients agree on the pruned weights: `cosine`, and the ratio of their norms, `norm_ratio`.

    `straight` is the gradient at the sparse network, where the pruned weights are zero (STE), `whole` the one at the
    dense network (DCIL's refined gradient), both by parameter name. In a channel that keeps no weight, the following
    norm divides by √ε, which makes STE's gradient large: `empty` counts those channels, `empty_share`
    is the fraction of STE's squared norm in them, `cosine_rest` the cosine without them.
    """
    straight, whole, masks = (filters_first(of, dual.transposed) for of in (straight, whole, dual.masks))

    def pruned(of: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([of[name][mask.logical_not()] for name, mask in masks.items()])

    empty = {name: empty_channels(mask) for name, mask in masks.items()}
    a, b = pruned(straight), pruned(whole)
    inside = pruned({name: over_filters(empty[name], mask) for name, mask in masks.items()})
    found = {
        "cosine": F.cosine_similarity(a, b, dim=0),
        "norm_ratio": a.norm() / b.norm().clamp_min(1e-12),
        "empty_share": (a[inside].norm() / a.norm().clamp_min(1e-12)).square(),
        "cosine_rest": F.cosine_similarity(a[~inside], b[~inside], dim=0),
    }
    return {"empty": sum(int(e.sum()) for e in empty.values()), **{k: round(float(v), 5) for k, v in found.items()}}


class Dynamics:
    """The mask history of a run: weights kept at any time since the target was reached, and masks at some epochs."""

    def __init__(self, dual: DualPath, config: ResolvedConfig):
        self.dual, self.config = dual, config
        self.ever = torch.zeros_like(sample(dual.masks))  # kept at any time at the target sparsity
        self.snapshots: dict[int, bytes] = {}  # packed samples by epoch

    def refreshed(self) -> None:
        """Record new masks, without synchronising with the device."""
        if self.config.sparsity and self.dual.target_sparsity == self.config.sparsity:
            self.ever |= sample(self.dual.masks)

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Store the masks at the epochs of `moments`; returns the entries for the epoch's row of the curve."""
        if not self.config.sparsity:
            return {}
        if epoch in moments(self.config.epochs):
            self.snapshots[epoch] = pack(sample(self.dual.masks))
        at_target = self.dual.target_sparsity == self.config.sparsity
        return {"ever_kept": round(float(self.ever.float().mean()), 6)} if at_target else {}

    def summary(self) -> dict[str, Any] | None:
        """Return the last mask and the overlap of earlier masks with it; None if nothing is pruned."""
        if not self.snapshots:
            return None
        count, total = len(self.ever), sum(mask.numel() for mask in self.dual.masks.values())
        final = self.snapshots[max(self.snapshots)]
        last = unpack(final, count)
        return {
            "stride": stride_of(total),
            "count": count,
            "overlap_with_last": [
                {"epoch": epoch, "jaccard": round(jaccard(unpack(bits, count), last), 5)}
                for epoch, bits in sorted(self.snapshots.items())
            ],
            "final": to_text(final),
        }

    def state(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {"ever": self.ever.clone(), "snapshots": dict(self.snapshots)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state()` returned."""
        self.ever.copy_(state["ever"])
        self.snapshots = dict(state["snapshots"])
