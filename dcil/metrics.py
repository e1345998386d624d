"""Metrics of a run in training: sums that stay on the device until they are read."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dcil.distributed import ALONE, Ranks
from dcil.dual_path import DualPath
from dcil.engine import Engine
from dcil.errors import DcilError
from dcil.io.bits import from_text

Batches = Iterable[tuple[Tensor, Tensor]]  # images [N, C, H, W], labels [N]
REESTIMATED_OVER = 16  # batches, enough for a running average to settle


def percent(hits: int, count: int) -> float:
    """Return an accuracy in percent, rounded as in a record."""
    return round(100 * hits / count, 4)


class Tally:
    """Sums of losses and hits over an epoch, on the device; updated in place, as captured steps require."""

    def __init__(self, passes: tuple[str, ...], device: torch.device):
        self.passes, self.device = passes, device
        self.hits = {name: torch.zeros(3, dtype=torch.int64, device=device) for name in passes}  # top-1, top-5, images
        self.losses: dict[str, Tensor] = {}

    def add(
        self, logits: dict[str, Tensor], labels: Tensor, losses: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Count one batch: logits [N, C] by pass, labels [N], and the terms of the loss (0-d), each once per step.

        Returns, by pass, which images have the right class as top-1, boolean [N].
        """
        top1: dict[str, Tensor] = {}
        for name, output in logits.items():
            right = output.detach().topk(min(5, output.shape[1]), dim=1).indices == labels[:, None]
            top1[name] = right[:, 0]
            seen = torch.full((), len(labels), device=labels.device)
            self.hits[name] += torch.stack((top1[name].sum(), right.sum(), seen))
        for name, value in (losses or {}).items():
            if name not in self.losses:  # the sum, and the number of steps
                self.losses[name] = torch.zeros(2, dtype=torch.float64, device=value.device)
            self.losses[name] += torch.stack((value.detach().double(), torch.ones_like(value, dtype=torch.float64)))
        return top1

    def reset(self) -> None:
        """Reset every sum to zero, in place."""
        for tensor in (*self.hits.values(), *self.losses.values()):
            tensor.zero_()

    def over(self, ranks: Ranks) -> Tally:
        """Return the tally summed over all ranks (this tally itself in a team of one)."""
        if ranks.size == 1:
            return self
        total = Tally(self.passes, self.device)
        total.load_state(self.state())
        ranks.sum_((*total.hits.values(), *total.losses.values()))
        return total

    def top(self) -> dict[str, dict[str, float]]:
        """Return top-1 and top-5 accuracy, in percent, of each pass that has seen an image."""
        sums = {name: hits.tolist() for name, hits in self.hits.items()}
        return {name: {"top1": percent(one, n), "top5": percent(five, n)} for name, (one, five, n) in sums.items() if n}

    def loss(self) -> dict[str, float]:
        """Return the mean over steps of each term that occurred, and the sum of these means as `total`."""
        sums = {name: value.tolist() for name, value in self.losses.items()}
        parts = {name: total / steps for name, (total, steps) in sums.items() if steps}
        return parts | {"total": sum(parts.values())}

    def state(self) -> dict[str, Any]:
        """Return copies of the sums, for a checkpoint."""
        return {
            "hits": {k: v.clone() for k, v in self.hits.items()},
            "losses": {k: v.clone() for k, v in self.losses.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the sums from a checkpoint."""
        for name, value in state["hits"].items():
            self.hits[name].copy_(value)
        self.losses = {name: value.to(self.device, copy=True) for name, value in state["losses"].items()}


def evaluate(
    model: nn.Module, passes: tuple[str, ...], test: Batches, engine: Engine, ranks: Ranks = ALONE
) -> dict[str, dict[str, float]]:
    """Return test accuracy (top-1, top-5, in percent) of each pass in eval mode, with running statistics."""
    return evaluate_images(model, passes, test, engine, ranks)[0]


@torch.no_grad()
def evaluate_images(
    model: nn.Module, passes: tuple[str, ...], test: Batches, engine: Engine, ranks: Ranks = ALONE
) -> tuple[dict[str, dict[str, float]], dict[str, Tensor]]:
    """Return the result of `evaluate` and, by pass, which images of this rank are right, boolean [N], in order."""
    model.eval()
    tally = Tally(passes, engine.device)
    # A rank's share can be empty, without any batch.
    right = {name: [torch.zeros(0, dtype=torch.bool, device=engine.device)] for name in passes}
    for images, labels in test:
        top1 = tally.add(dict(zip(passes, engine.passes(model, images), strict=True)), labels)
        for name in passes:
            right[name].append(top1[name])
    model.train()
    return tally.over(ranks).top(), {name: torch.cat(batches) for name, batches in right.items()}


@torch.no_grad()
def require_trainable(model: nn.Module, images: Tensor, engine: Engine) -> None:
    """Raise `DcilError` if the model's batch norms cannot train on so few images [N, C, H, W]; changes nothing."""
    try:
        engine.passes(copy.deepcopy(model).train(), images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        side = f"{images.shape[-2]}×{images.shape[-1]}"
        raise DcilError(
            f"some batch of an epoch has one image only, and at {side} pixels this network's batch norms get "
            f"one value per channel ({error}); choose another --batch-size, or larger images"
        ) from error


@contextlib.contextmanager
@torch.no_grad()
def reestimated(dual: DualPath, index: int, batches: Batches, engine: Engine, ranks: Ranks = ALONE) -> Iterator[None]:
    """Context in which norm statistics are plain means over `REESTIMATED_OVER` training batches of pass `index`.

    Running statistics lag behind weights and masks, and shared norms average over all passes; where accuracy recovers
    with fresh statistics, only the statistics were off. Everything is restored afterwards. A network without batch norm
    is unaffected.
    """
    norms = [m for m in dual.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [({n: b.clone() for n, b in m.named_buffers()}, m.momentum) for m in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative mean
        for images, _ in islice(batches, REESTIMATED_OVER if norms else 0):
            engine.one_pass(dual, index, images)
        ranks.mean_buffers_(*norms)
        yield
    finally:
        for norm, (buffers, momentum) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])


def evaluate_reestimated(
    dual: DualPath,
    batches: Callable[[], Batches],
    test: Batches,
    engine: Engine,
    ranks: Ranks = ALONE,
) -> dict[str, dict[str, float]]:
    """Return test accuracy as `evaluate` does, each pass with norm statistics `reestimated` for that pass alone."""
    found = {}
    for index, name in enumerate(dual.pass_names):
        with reestimated(dual, index, batches(), engine, ranks):
            found[name] = evaluate(dual, dual.pass_names, test, engine, ranks)[name]
    return found


def images_right(record: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """Return, by pass, which test images a record's final network gets right (top-1), boolean [N] in data set order.

    None if the record does not say; raises `DcilError` if its entry cannot be read.
    """
    if not (held := record.get("images_right")):
        return None
    try:
        return {name: from_text(text, record["data"]["test_size"]) for name, text in held.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise DcilError(f"images_right in the record {record.get('run_id')} cannot be read: {error}") from error


def images_problems(record: dict[str, Any]) -> list[str]:
    """Return where the `images_right` of a record contradicts the last accuracies of its curve.

    Raises `DcilError` if `images_right` cannot be read.
    """
    if record["status"] != "complete":
        return [f"images_right is of a run's last epoch, and this run is {record['status']}"]
    last, right = record["curve"][-1]["test"], images_right(record) or {}
    if {*right} != {*last}:
        return [f"images_right has the passes {sorted(right)}, the curve has {sorted(last)}"]
    return [
        f"images_right[{name!r}] has {each.sum()} of {len(each)} images, {top1} %, but the last top-1 is "
        f"{last[name]['top1']} %"
        for name, each in right.items()
        if (top1 := percent(int(each.sum()), len(each))) != last[name]["top1"]
    ]
