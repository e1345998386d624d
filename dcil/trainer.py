"""A run in memory: the network, its optimizer, and the loop over epochs and steps."""

from __future__ import annotations

import math
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from dcil import cost, distributed, machine, methods, models, records
from dcil.config import ResolvedConfig
from dcil.data import datasets
from dcil.data.images import ImageFolder
from dcil.data.loaders import loaders_of
from dcil.distributed import ALONE, Ranks
from dcil.dual_path import DualPath
from dcil.dynamics import Dynamics, compare_gradients, control_epochs, moments
from dcil.engine import Engine
from dcil.errors import DcilError
from dcil.io import bits
from dcil.losses import total
from dcil.methods import Phase
from dcil.metrics import Tally, evaluate_images, evaluate_reestimated, require_trainable
from dcil.parts import OWN
from dcil.refresh import refresh, require_kept, require_target

_SEEDING = threading.Lock()  # runs in threads share PyTorch's global generator


def learning_rate(config: ResolvedConfig, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step: a linear rise during warm-up, then a factor at each milestone."""
    warmup = config.warmup_epochs * steps_per_epoch
    rise = min(step / warmup, 1.0) if warmup else 1.0
    passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
    return config.lr * (1 + (config.warmup_factor - 1) * rise) * config.lr_decay**passed


def build(config: ResolvedConfig, num_classes: int) -> DualPath:
    """Return the wrapped, freshly initialised network of a run, seeded by `config.seed`."""
    with _SEEDING, torch.random.fork_rng(devices=[]):  # the caller's random state is restored
        torch.default_generator.manual_seed(config.seed)  # torch.manual_seed would seed GPUs too
        method, net = methods.get(config.method), models.build(config.model, num_classes)
        dual = DualPath(net, rules=method.rules, per_pass=OWN[method.own](net), fresh=True)
    return nn.SyncBatchNorm.convert_sync_batchnorm(dual) if config.sync_batchnorm else dual


def require_every_pass(method: methods.Method, config: ResolvedConfig, steps_per_epoch: int) -> None:
    """Raise `DcilError` if an epoch could go by without the second pass, whose accuracy every row of the curve has."""
    if len(method.rules) > 1 and config.dense_every > steps_per_epoch:
        raise DcilError(
            f"dense_every is {config.dense_every}, but an epoch has {steps_per_epoch} steps, so not every epoch would "
            f"run the {method.passes[1]} pass; lower --dense-every to {steps_per_epoch} or less"
        )


class NotFinite(DcilError):
    """A loss or a weight became infinite or NaN."""


class Trainer:
    """A run in memory: network, optimizer, loaders, the curve so far and the current epoch."""

    def __init__(
        self,
        config: ResolvedConfig,
        dataset: datasets.Dataset | ImageFolder,
        team: Ranks = ALONE,
        fast: bool = True,
        workers: int | None = None,
    ):
        if len(dataset.mean) != 3:
            raise DcilError(
                f"{dataset.name} has images of {len(dataset.mean)} channels, but the networks here take 3; for grey "
                "images, use images.expand(-1, 3, -1, -1) and repeat mean and std three times"
            )
        self.config, self.dataset, self.team = config, dataset, team
        self.engine = engine = Engine(config, team, fast)
        # Taken now: the checkout may change while this trains.
        self.environment = records.environment(engine.device) | {"ranks": team.size}
        self.method = methods.get(config.method)
        self.dual = engine.place(build(config, dataset.num_classes))
        self.model = distributed.share(self.dual, team, engine.device, every_pass=config.dense_every == 1)
        self.optimizer = engine.optimizer(self.dual, config)
        self.loader, self.test = loaders_of(dataset, config, engine.device, engine.dtype, team, workers)
        require_target(self.method.masks, config, len(self.loader))
        require_kept(self.dual, config)
        require_every_pass(self.method, config, len(self.loader))
        if self.loader.least == 1:
            require_trainable(self.dual, self.blank_image(), engine)
        self.data_sha256 = dataset.checksum()
        # By a weak reference, since a trainer in a cycle would keep its device memory from the runs that follow.
        self.take_step = engine.fast(partial(type(self).step, weakref.proxy(self)))
        self.curve: list[dict[str, Any]] = []
        self.sessions: list[dict[str, Any]] = []  # each start and resume: epochs, seconds, memory
        # The current epoch.
        self.steps_done, self.earlier_s, self.since = 0, 0.0, time.perf_counter()
        self.tally = Tally(self.dual.pass_names, engine.device)
        self.flips = torch.zeros((), dtype=torch.int64, device=engine.device)
        self.dynamics = Dynamics(self.dual, config)
        self.images_right: dict[str, str] = {}  # by pass, at the last epoch, encoded as in a record
        self.first, self.began = 0.0, time.perf_counter()

    @property
    def position(self) -> float:
        """Epochs trained so far, including the fraction of the current one."""
        return len(self.curve) + round(self.steps_done / len(self.loader), 6)

    def blank_image(self) -> Tensor:
        """Return a blank image of the network's input size, [1, 3, H, W]."""
        return torch.zeros(1, 3, *self.test.feed["size"], dtype=self.engine.dtype, device=self.engine.device)

    def step(self, images: Tensor, labels: Tensor, phase: Phase) -> None:
        """Take one optimizer step on a batch [N, C, H, W] with labels [N], every pass included."""
        # Converted once, instead of by every convolution that reads the images, and kept until the step's end: the
        # passes' two streams read the images, but the allocator knows only the first stream to use their memory.
        images = images.contiguous(memory_format=self.engine.layout)
        outputs = self.engine.passes(self.model, images, phase.passes)
        logits = dict(zip(self.dual.pass_names, outputs, strict=False))  # fewer if not every pass ran
        losses = self.method.loss(logits, labels, self.config, phase)
        if self.team.size > 1:  # ranks' means become the batch's mean, even if their shares are unequal
            share = self.loader.share(self.steps_done)
            losses = {name: share * value for name, value in losses.items()}
        self.optimizer.zero_grad(set_to_none=True)
        total(losses).backward()
        if self.method.clip is not None:
            nn.utils.clip_grad_norm_(self.dual.parameters(), self.method.clip)
        self.optimizer.step()
        self.tally.add(logits, labels, losses)

    def gradients(self, images: Tensor, labels: Tensor, rule: str, index: int = 0, batch: int = 0) -> dict[str, Tensor]:
        """Return the gradient of one pass's cross-entropy that each prunable weight gets under a rule.

        The gradient is over the whole batch, number `batch` of its epoch; `images` and `labels` are this rank's share.
        """

        def loss_of(output: Tensor) -> Tensor:
            return F.cross_entropy(output.to(self.engine.dtype), labels)

        with self.engine.autocast():
            found = self.dual.gradients(loss_of, images, rule=rule, index=index)
        if self.team.size > 1:  # as in a step: the batch's mean, even if the ranks' shares are unequal
            share = self.loader.share(batch)
            found = {name: (share * gradient).contiguous() for name, gradient in found.items()}
            self.team.mean_(found.values())
        return found

    def run(self, progress: bool) -> Iterator[bool]:
        """Train to the end; yields between steps whether an epoch just ended. `state()` is valid at every yield."""
        config, steps = self.config, len(self.loader)
        while len(self.curve) < config.epochs:
            epoch, self.since = len(self.curve), time.perf_counter()
            batches = self.loader.epoch(epoch, first=self.steps_done)
            with bar_of(self, progress) as bar:
                for images, labels in batches:
                    step = epoch * steps + self.steps_done
                    rate = learning_rate(config, step, steps)
                    self.engine.set_rate(self.optimizer, rate)
                    change, flips = self.method.masks(config, step / steps, step), None
                    if change is not None:
                        # RigL grows by the gradient that pruned weights have at the sparse network.
                        gradients = partial(self.gradients, images, labels, "straight_through", batch=self.steps_done)
                        flips = refresh(self.dual, change, config, step, gradients)
                    if flips is not None:
                        self.flips += flips
                        self.dynamics.refreshed()
                        self.team.check_same(self.dual.masks.values(), "the masks")
                    self.take_step(images, labels, methods.phase_of(config, epoch, step))
                    self.steps_done += 1
                    bar.update()
                    if self.steps_done % 10 == 0 and not bar.disable:  # reading a number synchronises with the device
                        shown = {name: f"{value['top1']:.1f}%" for name, value in self.tally.top().items()}
                        bar.set_postfix(loss=f"{self.tally.loss()['total']:.3f}", **shown)
                    if self.steps_done < steps:
                        yield False
            self.end_epoch(rate)
            yield True

    def finite_tally(self) -> Tally:
        """Return the epoch's tally so far, of all ranks; raises `NotFinite` if its loss or a weight is not finite."""
        tally = self.tally.over(self.team)
        loss = tally.loss()["total"]
        # The last step's loss can be finite although the weights after it are not.
        finite = torch.stack([p.isfinite().all() for p in self.dual.parameters()]).all()
        if not (math.isfinite(loss) and finite):
            what = "a weight is not finite" if math.isfinite(loss) else f"the loss became {loss}"
            rate = float(self.optimizer.param_groups[0]["lr"])
            raise NotFinite(
                f"{what} in epoch {len(self.curve) + 1} (lr {rate:g}); lower --lr or use --precision "
                "float32. Earlier checkpoints were kept"
            )
        return tally

    def end_epoch(self, rate: float) -> None:
        """Measure the epoch and append a row to the curve; raises `NotFinite` if the loss or a weight is not finite."""
        tally = self.finite_tally()
        self.team.mean_buffers_(self.dual)  # norm statistics
        test, right = evaluate_images(self.dual, self.dual.pass_names, self.test, self.engine, self.team)
        if len(self.curve) == self.config.epochs - 1 and len(self.dataset.test_labels) <= bits.MOST:
            self.images_right = {name: bits.to_text(bits.pack(self.team.interleaved(r))) for name, r in right.items()}
        row = {
            "epoch": len(self.curve),
            "lr": rate,
            "target_sparsity": self.dual.target_sparsity,
            "sparsity": round(self.dual.sparsity(), 8),
            "flips": int(self.flips),
            "refreshes": self.dual.refreshes - sum(row["refreshes"] for row in self.curve),
            "loss": tally.loss(),
            "train": tally.top(),
            "test": test,
            **self.measure(),
        }
        self.curve.append(row | {"time_s": round(self.earlier_s + time.perf_counter() - self.since, 3)})
        self.steps_done, self.earlier_s, self.since = 0, 0.0, time.perf_counter()
        self.tally.reset()
        self.flips.zero_()

    def measure(self) -> dict[str, Any]:
        """Return the measures of masks, gradients and norm statistics after this epoch; does not affect training."""
        epoch, dual = len(self.curve), self.dual
        row: dict[str, Any] = dict(self.dynamics.end_epoch(epoch))
        if dual.target_sparsity and epoch in moments(self.config.epochs):
            images, labels = next(self.loader.epoch(epoch + 1))
            straight = self.gradients(images, labels, "straight_through")
            whole = self.gradients(images, labels, "dense", index=int(dual.pass_names[1:] == ("dense",)))
            row["gradients"] = compare_gradients(straight, whole, dual)
        if epoch in control_epochs(self.config.epochs):
            batches = partial(self.loader.epoch, epoch + 1)
            row["reestimated"] = evaluate_reestimated(dual, batches, self.test, self.engine, self.team)
        return row

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs; data order and augmentation follow from seed, epoch and step.

        Raises `NotFinite` if the loss or a weight is not finite: a run could not go on from such a checkpoint.
        """
        self.note_session()
        self.team.mean_buffers_(self.dual)  # else all ranks would resume from one rank's norm statistics
        part = {
            "steps": self.steps_done,
            "done": self.steps_done / len(self.loader),
            "flips": int(self.flips),
            "tally": self.finite_tally().state(),
            "time_s": self.earlier_s + time.perf_counter() - self.since,
        }
        return {
            "model": self.dual.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "curve": self.curve,
            "sessions": self.sessions,
            "torch_rng": torch.get_rng_state(),  # for earlier versions, which restore it; no step draws from it
            "part": part,
            "dynamics": self.dynamics.state(),
            "images_right": self.images_right,
            "data_sha256": self.data_sha256,
            "classes": list(self.dataset.classes),
            "feed": self.test.feed,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume a run from what `state()` returned."""
        self.dual.load_state_dict(state["model"])
        self.engine.restore(self.optimizer, state["optimizer"])
        self.curve, self.sessions = state["curve"], state["sessions"]
        if "dynamics" in state:  # absent from checkpoints that are older than these measures
            self.dynamics.load_state(state["dynamics"])
        self.images_right = state.get("images_right", {})  # likewise
        if part := state.get("part"):  # checkpoints of version 0.1.0 have only whole epochs
            self.steps_done, self.earlier_s = part["steps"], part["time_s"]
            self.flips.fill_(part["flips"])
            self.tally.load_state(part["tally"])
            if not self.team.is_first:  # the first rank continues the sums of all ranks; the others keep only the names
                self.tally.reset()
        self.first = self.position

    def note_session(self) -> None:
        """Record what this process has trained so far, replacing its earlier entry."""
        note = {
            "first_epoch": self.first,
            "epochs": round(self.position - self.first, 6),
            "time_s": round(time.perf_counter() - self.began, 3),
            "mem_mib": round(machine.peak_memory_mib(self.engine.device), 1),
            "threads": torch.get_num_threads(),
            "ranks": self.team.size,
            "step": self.engine.path(self.take_step),
            "shared_by": self.engine.shared_by,
            **{name: self.environment[name] for name in ("device", "torch", "commit", "dirty")},
        }
        self.sessions = [s for s in self.sessions if s["first_epoch"] < self.first] + [note]

    def record(self, status: str = "complete", reason: str = "") -> dict[str, Any]:
        """Return the run record of what has been trained so far."""
        self.note_session()
        d, config = self.dataset, self.config
        # A resumed run can take its steps by another path.
        paths = dict.fromkeys(s["step"] for s in self.sessions if "step" in s)
        environment = self.environment | {"step": ", then ".join(paths), "streams": 2 if self.engine.side else 1}
        environment["dirty"] = any(s.get("dirty", False) for s in self.sessions)
        shared_by = max(s.get("shared_by", 1) for s in self.sessions)
        record = {
            "schema": records.SCHEMA,
            "run_id": config.run_id,
            "tier": config.tier,
            "status": status,
            "config": config.as_dict(),
            "environment": environment,
            "data": {
                "name": d.name,
                "sha256": self.data_sha256,
                "train_size": len(d.train_labels),
                "test_size": len(d.test_labels),
                "num_classes": d.num_classes,
            },
            "curve": self.curve,
            "final": records.summarize(self.curve, config.sparsity),
            "cost": {
                "time_s": round(sum(row["time_s"] for row in self.curve), 3),
                "mem_mib": max(s["mem_mib"] for s in self.sessions),
                "sessions": self.sessions,
                **({"shared_by": shared_by} if shared_by > 1 else {}),
                **cost.network_cost(self.dual, self.blank_image()),
            },
        }
        if masks := self.dynamics.summary():
            record["masks"] = masks
        if self.images_right:
            record["images_right"] = self.images_right
        return record | ({"reason": reason} if reason else {})


def bar_of(trainer: Trainer, progress: bool) -> tqdm:
    """Return a progress bar over the epoch's steps; drawn only on a terminal, by the first rank."""
    shown = progress and trainer.team.is_first
    return tqdm(
        desc=f"epoch {len(trainer.curve) + 1}/{trainer.config.epochs}",
        total=len(trainer.loader),
        initial=trainer.steps_done,
        leave=False,
        disable=None if shown else True,
        file=sys.stderr,
    )
