"""The training loop: one configuration in, one run record out, resumable at every epoch."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dcil import checkpoint, cost, data, methods, models, records
from dcil.config import RunConfig
from dcil.engine import Engine
from dcil.errors import DcilError
from dcil.paths import DualPath, set_masks


def learning_rate(config: RunConfig, step: int, steps_per_epoch: int) -> float:
    """Return the rate for a step: a linear rise during warm-up, then a factor at each milestone."""
    warmup = config.warmup_epochs * steps_per_epoch
    rise = min(step / warmup, 1.0) if warmup else 1.0
    passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
    return config.lr * (1 + (config.warmup_factor - 1) * rise) * config.lr_decay**passed


def build(config: RunConfig, num_classes: int) -> DualPath:
    """Return the wrapped, freshly initialised network of a run, seeded by `config.seed`."""
    torch.manual_seed(config.seed)
    net = models.build(config.model, num_classes)
    return DualPath(net, rules=methods.get(config.method).rules, fresh=True)


class Tally:
    """Sums of losses and hits that stay on the device until they are read."""

    def __init__(self, passes: tuple[str, ...], device: torch.device):
        self.passes, self.count, self.steps = passes, 0, 0
        self.hits = {name: torch.zeros(2, dtype=torch.int64, device=device) for name in passes}  # top-1, top-5
        self.losses: dict[str, Tensor] = {}

    def add(self, logits: dict[str, Tensor], labels: Tensor, losses: dict[str, Tensor] | None = None) -> None:
        """Count one batch: logits [N, C] by pass, labels [N], and the terms of the loss."""
        for name, output in logits.items():
            right = output.detach().topk(min(5, output.shape[1]), dim=1).indices == labels[:, None]
            self.hits[name] += torch.stack((right[:, 0].sum(), right.sum()))
        for name, value in (losses or {}).items():
            self.losses[name] = self.losses.get(name, 0) + value.detach()
        self.count, self.steps = self.count + len(labels), self.steps + 1

    def top(self) -> dict[str, dict[str, float]]:
        """Return top-1 and top-5 accuracy of each pass, in percent."""
        percent = {name: [round(100 * h / self.count, 4) for h in hits.tolist()] for name, hits in self.hits.items()}
        return {name: {"top1": p[0], "top5": p[1]} for name, p in percent.items()}

    def loss(self) -> dict[str, float]:
        """Return the mean of each term of the loss, and of their sum."""
        parts = {name: float(value) / self.steps for name, value in self.losses.items()}
        return parts | {"total": sum(parts.values())}


@torch.no_grad()
def evaluate(model: torch.nn.Module, passes: tuple[str, ...], test: data.TestLoader, engine: Engine) -> dict:
    """Return test accuracy (top-1, top-5, in percent) of each pass, with running statistics."""
    model.eval()
    tally = Tally(passes, engine.device)
    for images, labels in test:
        with engine.autocast():
            outputs = model(images.contiguous(memory_format=engine.layout))
        tally.add(dict(zip(passes, outputs, strict=True)), labels)
    model.train()
    return tally.top()


class Trainer:
    """A run in memory: network, optimizer, loaders and the curve so far."""

    def __init__(self, config: RunConfig, dataset: data.Dataset):
        self.config, self.dataset, self.engine = config, dataset, Engine(config)
        self.environment = records.environment(self.engine)  # now: the checkout may change while this trains
        self.method = methods.get(config.method)
        self.dual = self.engine.place(build(config, dataset.num_classes))
        trained = [p for p in self.dual.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, config.lr, config.momentum, nesterov=config.momentum > 0,
                                         weight_decay=config.weight_decay)  # fmt: skip
        self.loader = data.TrainLoader(dataset, config.batch_size, config.seed, self.engine.device, self.engine.dtype)
        self.test = data.TestLoader(dataset, self.engine.device, self.engine.dtype)
        self.curve: list[dict[str, Any]] = []
        self.sessions: list[dict[str, Any]] = []  # each start and resume: epochs, seconds, memory

    def step(self, images: Tensor, labels: Tensor, epoch: int, tally: Tally) -> None:
        """Take one optimizer step on a batch [N, C, H, W] with labels [N], every pass included."""
        images = images.contiguous(memory_format=self.engine.layout)
        with self.engine.autocast():
            outputs = self.dual(images)
        logits = dict(zip(self.dual.pass_names, (o.to(self.engine.dtype) for o in outputs), strict=True))
        losses = self.method.loss(logits, labels, self.config, epoch)
        self.optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        self.optimizer.step()
        tally.add(logits, labels, losses)

    def train_epoch(self, progress: bool) -> None:
        """Train one epoch, measure it and append a row to the curve; raises `DcilError` when a number is not finite."""
        epoch, config, began = len(self.curve), self.config, time.perf_counter()
        tally = Tally(self.dual.pass_names, self.engine.device)
        flips, refreshes_before, rate = torch.zeros((), dtype=torch.int64), self.dual.refreshes, config.lr
        bar = tqdm(self.loader.epoch(epoch), f"epoch {epoch + 1}/{config.epochs}", len(self.loader), leave=False,
                   disable=not progress, file=sys.stderr)  # fmt: skip
        for index, (images, labels) in enumerate(bar):
            step = epoch * len(self.loader) + index
            rate = learning_rate(config, step, len(self.loader))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            sparsity = self.method.masks(config, epoch, step)
            if sparsity is not None:
                flips = flips.to(self.engine.device) + set_masks(self.dual, sparsity, config.scope, config.score)
            self.step(images, labels, epoch, tally)
            if progress and index % 10 == 9:  # reading a number waits for the device: not at every step
                shown = {name: f"{value['top1']:.1f}%" for name, value in tally.top().items()}
                bar.set_postfix(loss=f"{tally.loss()['total']:.3f}", **shown)
        loss = tally.loss()
        # The last step's loss can be finite and the weights it leaves behind not.
        finite = torch.stack([p.isfinite().all() for p in self.dual.parameters()]).all()
        if not (math.isfinite(loss["total"]) and finite):
            what = "a weight is not finite" if math.isfinite(loss["total"]) else f"the loss became {loss['total']}"
            raise DcilError(f"{what} in epoch {epoch + 1} (lr {rate:g}); lower --lr or use --precision float32. "
                            "The last good checkpoint was kept")  # fmt: skip
        row = {
            "epoch": epoch,
            "lr": rate,
            "target_sparsity": self.dual.target_sparsity,
            "sparsity": round(self.dual.sparsity(), 8),
            "flips": int(flips),
            "refreshes": self.dual.refreshes - refreshes_before,
            "loss": loss,
            "train": tally.top(),
            "test": evaluate(self.dual, self.dual.pass_names, self.test, self.engine),
        }
        self.curve.append(row | {"time_s": round(time.perf_counter() - began, 3)})

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs; order and augmentation follow from seed and epoch."""
        return {"model": self.dual.state_dict(), "optimizer": self.optimizer.state_dict(), "curve": self.curve,
                "sessions": self.sessions, "torch_rng": torch.get_rng_state()}  # fmt: skip

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a run where `state()` left it."""
        self.dual.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.curve, self.sessions = state["curve"], state["sessions"]
        torch.set_rng_state(state["torch_rng"])

    def note_session(self, first_epoch: int) -> None:
        """Write down what this process has done so far, in place of its earlier note."""
        rows = self.curve[first_epoch:]
        note = {"first_epoch": first_epoch, "epochs": len(rows), "time_s": round(sum(r["time_s"] for r in rows), 3),
                "mem_mib": round(self.engine.peak_memory_mib(), 1), "threads": torch.get_num_threads()}  # fmt: skip
        self.sessions = [s for s in self.sessions if s["first_epoch"] != first_epoch] + [note]

    def record(self, status: str = "complete", reason: str = "") -> dict[str, Any]:
        """Return the run record of what has been trained so far."""
        d, config = self.dataset, self.config
        image = self.test.normalize(self.test.images[:1])
        record = {
            "schema": records.SCHEMA,
            "run_id": config.run_id,
            "tier": config.tier,
            "status": status,
            "config": config.as_dict(),
            "environment": self.environment,
            "data": {"name": d.name, "sha256": d.checksum(), "train_size": len(d.train_labels),
                     "test_size": len(d.test_labels), "num_classes": d.num_classes},
            "curve": self.curve,
            "final": records.summarize(self.curve, config.sparsity),
            "cost": {"time_s": round(sum(row["time_s"] for row in self.curve), 3),
                     "mem_mib": max((s["mem_mib"] for s in self.sessions), default=0.0), "sessions": self.sessions,
                     **cost.network_cost(self.dual, image)},
        }  # fmt: skip
        return record | ({"reason": reason} if reason else {})


def fit(
    config: RunConfig,
    *,
    dataset: data.Dataset | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    runs_dir: str | Path = "runs",
    resume: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a configuration and return its record, also written to `runs_dir`/<run id>/record.json.

    A run that has its record is not trained again; one with a checkpoint goes on after its last
    whole epoch. `dataset` replaces the one that the configuration names. With `resume=False` the
    run starts anew and its files are replaced. Raises `DcilError` for bad input, a damaged file, or
    a loss that is not finite; then a record with status "failed" is left beside the checkpoint.
    """
    config = config.resolve()
    folder = Path(runs_dir) / config.run_id
    record_path, checkpoint_path = folder / "record.json", folder / "checkpoint.pt"
    if resume and record_path.exists():
        done = records.read(record_path)
        if done["status"] == "complete":
            return done
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DcilError(f"cannot write the run to {folder}: {error.strerror}; choose another --runs-dir") from error
    if not resume:  # else a run killed now would later be taken for the old, complete one
        record_path.unlink(missing_ok=True)
        checkpoint_path.unlink(missing_ok=True)
    dataset = dataset or data.load(config.dataset, data_dir, download, config.image_size)
    trainer = Trainer(config, dataset)
    if resume and checkpoint_path.exists():
        trainer.load_state(checkpoint.load(checkpoint_path, config))
    first = len(trainer.curve)
    while len(trainer.curve) < config.epochs:
        try:
            trainer.train_epoch(progress)
        except DcilError as error:
            trainer.note_session(first)
            records.write(trainer.record("failed", str(error)), record_path)
            raise
        trainer.note_session(first)
        checkpoint.save(checkpoint_path, config, trainer.state())
        if progress:
            tqdm.write(summary_line(trainer.curve[-1], config), file=sys.stderr)
    record = trainer.record()
    records.write(record, record_path)
    return record


def summary_line(row: dict[str, Any], config: RunConfig) -> str:
    """Return one epoch in one line, for people."""
    shown = "  ".join(f"{name} {top['top1']:.2f} %" for name, top in row["test"].items())
    return (f"epoch {row['epoch'] + 1:3d}/{config.epochs}  loss {row['loss']['total']:.4f}  test {shown}  "
            f"sparsity {row['sparsity']:.4f}  lr {row['lr']:.4g}  {row['time_s']:.1f} s")  # fmt: skip
