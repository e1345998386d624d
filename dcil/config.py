"""The configuration that determines a run's result: one frozen dataclass, the authors' schedules, presets, the run id.

Paths of data and runs are not part of it: they do not change a number.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Self

import torch

from dcil import machine, methods
from dcil.data.crops import LARGEST_SIDE
from dcil.data.datasets import DATASETS
from dcil.errors import DcilError, unknown
from dcil.masks import SCOPES, SCORES
from dcil.models import MODELS, TORCHVISION
from dcil.ranges import Epochs, Flag, Fraction, OneOf, Positive, Range, Removed, Whole
from dcil.rules import are_soft

PRECISIONS = ("float32", "float64", "tf32", "bf16")
DEVICES = ("auto", "cpu", "cuda")
MOST_EPOCHS = 10_000  # per run, to bound the size of its record


@dataclass(frozen=True)
class Recipe:
    """A training schedule for a full run, times in epochs; shorter runs scale it."""

    epochs: int
    milestones: tuple[int, ...]
    lr_decay: float
    ramp_end: int
    distill_from: int
    warmup_epochs: int
    warmup_factor: float
    weight_decay: float
    lr: float = 0.1
    lr_per: int = 0  # batch size for which lr is given; 0: any


# Both are from the authors' code (their run scripts end at ramp end + 75).
RESNET = Recipe(300, (150, 225), 0.1, 225, 70, 5, 2.0, 1e-4)
WIDE_RESNET = Recipe(195, (60, 120, 160), 0.2, 120, 70, 0, 1.0, 5e-4)
# For torchvision's networks. The usual ImageNet recipe (Goyal et al. 2017): 90 epochs, lr 0.1 at batch size 256 after a
# warm-up of 5 epochs, divided by ten at 30, 60 and 80. The authors' code has none; the ramp ends and the mutual loss
# begins at the same fractions of training as in their CIFAR runs.
IMAGENET = Recipe(90, (30, 60, 80), 0.1, 68, 21, 5, 10.0, 1e-4, lr=0.01, lr_per=256)


TIERS = ("smoke", "quick", "paper")  # see `RunConfig.tier`


def _field(default: Any, why: str, takes: Range, since: str | None = None) -> Any:
    """Return a field with its default, the reason for it, and the values it takes.

    `since` is the date on which a field was added after the first records; earlier records imply its default.
    """
    return field(default=default, metadata={"why": why, "takes": takes, "since": since})


def run_id_of(config: dict[str, Any]) -> str:
    """Return the run id, a readable name and eight hex digits of a hash, from a resolved configuration's fields.

    A field added after the first records is hashed only where it is not at its default, so that old records keep
    their ids.
    """
    hashed = {k: v for k, v in config.items() if not (k in LATER and v == LATER[k])}
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:8]
    sparse = f"-s{config['sparsity']:g}" if config["sparsity"] else ""
    return "{dataset}-{model}-{method}".format(**config) + f"{sparse}-e{config['epochs']}-seed{config['seed']}-{digest}"


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run. `None` means "the authors' recipe for this model, scaled to `epochs`".

    Raises `dcil.DcilError` on any value outside its range, naming the value, the range and the nearest
    allowed name.

    >>> config = RunConfig(dataset="cifar10", method="dcil", sparsity=0.95, epochs=30)
    >>> config.resolve().milestones, config.resolve().ramp_end
    ((15, 22), 22)
    >>> RunConfig(sparsity=95)
    Traceback (most recent call last):
    dcil.errors.DcilError: sparsity is 95.0; it is the fraction removed and must be in [0, 1); did you mean 0.95?
    """

    dataset: str = _field(
        "digits",
        " | ".join(f"{row.name} (no download)" if row.comes_with else row.name for row in DATASETS.values()),
        OneOf(DATASETS),
    )
    model: str = _field("resnet20", "a name of dcil.models; the smallest network in the authors' code", OneOf(MODELS))
    method: str = _field("dcil", "a name of dcil.methods; the method this book is about", OneOf(methods.METHODS))
    sparsity: float = _field(0.9, "final fraction removed, in [0, 1); the authors' first setting", Removed())
    scope: str = _field("global", "one threshold over all layers (authors) | layer | filter", OneOf(SCOPES))
    score: str = _field("l2", "l2 = w² (authors) | l1 = |w|", OneOf(SCORES))
    epochs: int = _field(300, "passes over the training set (authors, CIFAR ResNets)", Whole(1, MOST_EPOCHS))
    batch_size: int = _field(128, "images a step (authors)", Whole(1))
    # Multiplied by the warm-up factor it must still be finite in float32.
    lr: float | None = _field(
        None, "learning rate before warm-up (authors: 0.1; ImageNet: 0.01 for 256 images a step)", Positive(1e30)
    )
    momentum: float = _field(0.9, "Nesterov momentum (authors)", Fraction())
    weight_decay: float | None = _field(None, "on all parameters (authors): 1e-4, Wide ResNets 5e-4", Fraction())
    warmup_epochs: int | None = _field(
        None, "lr rises linearly this long (authors: 5 of 300; none for Wide ResNets)", Whole()
    )
    warmup_factor: float | None = _field(None, "to lr times this (authors: 2; 1 for Wide ResNets)", Positive(1e6))
    milestones: tuple[int, ...] | None = _field(None, "epochs at which lr falls (authors: 150, 225 of 300)", Epochs())
    lr_decay: float | None = _field(None, "lr is multiplied by this (authors: 0.1; Wide ResNets 0.2)", Positive(1.0))
    ramp_end: int | None = _field(None, "epoch at which sparsity is final (authors: 225 of 300)", Whole())
    mask_period: int = _field(
        16, "steps between mask choices (authors); set, rigl* and *_stepwise have their own", Whole(1)
    )
    distill_from: int | None = _field(None, "first epoch of the mutual loss (authors: 70 of 300)", Whole())
    distill_warmup: int = _field(
        0, "epochs over which the mutual loss grows to full strength (authors: at once)", Whole(), since="2026-11-23"
    )
    dense_every: int = _field(
        1, "steps from one second pass to the next: cost 1 + 1/k (authors: at every step)", Whole(1), since="2026-11-23"
    )
    label_smoothing: float = _field(
        0.0, "part of each target spread over all classes; 0.1 is common on ImageNet", Fraction(), since="2026-11-24"
    )
    temperature: float = _field(2.0, "softens the logits in the mutual loss (authors)", Positive(1e6))
    image_size: int | None = _field(
        None, "side of the crops in pixels, folders of images only (224, as usual)", Whole(8, LARGEST_SIDE)
    )
    precision: str = _field("float32", "float32 (authors) | tf32 (GPU) | bf16 (autocast) | float64", OneOf(PRECISIONS))
    channels_last: bool = _field(False, "memory layout; faster on a CPU and with bf16, the same mathematics", Flag())
    sync_batchnorm: bool = _field(
        False, "batch norm over all ranks' images; GPUs only, for small shares of a batch", Flag(), since="2026-11-23"
    )
    device: str = _field("auto", "auto = the GPU where there is one | cpu | cuda", OneOf(DEVICES))
    seed: int = _field(0, "of initial weights, order and augmentation; the authors set none", Whole(0, 2**32 - 1))

    def __post_init__(self) -> None:
        for known in dataclasses.fields(RunConfig):
            value, takes = getattr(self, known.name), known.metadata["takes"]
            if value is None and known.default is None:
                continue  # left to the recipe
            if value is None and not isinstance(takes, OneOf):
                raise DcilError(f"{known.name} is None; it must have a value, e.g. {known.default!r}")
            object.__setattr__(self, known.name, takes.accept(known.name, value))
        method = methods.get(self.method)
        if are_soft(method.rules) and self.scope != "global":
            raise DcilError(
                f"scope is {self.scope!r}, but method {self.method!r} has one soft threshold over all layers, and "
                "most weights that another scope keeps would be zero under it; leave it out, or use another method"
            )
        ignored: dict[str, str] = {}
        if len(method.rules) == 1:
            ignored["dense_every"] = "has one pass"
        if not method.teaches:
            ignored |= dict.fromkeys(("distill_warmup", "temperature"), "has no mutual loss")
        if not method.scored:
            ignored |= dict.fromkeys(("scope", "score"), "keeps a share of each layer")
        for name, why in ignored.items():
            if (value := getattr(self, name)) != getattr(RunConfig, name):
                raise DcilError(
                    f"{name} is {value!r}, but method {self.method!r} {why} and would ignore it; "
                    "leave it out, or use another method"
                )

    def recipe(self) -> Recipe:
        """Return the schedule for this model: the authors', or the usual ImageNet one for torchvision's networks."""
        if self.model in TORCHVISION:
            return IMAGENET
        return WIDE_RESNET if self.model.startswith("wrn") else RESNET

    def resolve(self) -> ResolvedConfig:
        """Return the same run with every `None` filled in and "auto" decided, whether or not the device is available.

        The recipe's epochs scale with `epochs`; the end of the ramp and the milestones are rounded down, so that at
        least one epoch is left at the final sparsity. Raises `DcilError` for a setting that the device cannot do.
        """
        recipe = self.recipe()

        def scaled(epoch: int) -> int:
            return epoch * self.epochs // recipe.epochs

        fill = {
            "lr": recipe.lr * (self.batch_size / recipe.lr_per if recipe.lr_per else 1),
            "weight_decay": recipe.weight_decay,
            "warmup_epochs": max(1, scaled(recipe.warmup_epochs)) if recipe.warmup_epochs else 0,
            "warmup_factor": recipe.warmup_factor,
            "milestones": tuple(sorted({scaled(e) for e in recipe.milestones} - {0})),
            "lr_decay": recipe.lr_decay,
            "ramp_end": scaled(recipe.ramp_end),
            # Unused by data sets of a fixed image size; their records have always said 64.
            "image_size": 224 if DATASETS[self.dataset].is_folder else 64,
            "distill_from": round(recipe.distill_from * self.epochs / recipe.epochs),
        }
        values = {known.name: getattr(self, known.name) for known in dataclasses.fields(self)}
        values |= {name: value for name, value in fill.items() if values[name] is None}
        if not methods.get(self.method).prunes:  # one run, whatever it is compared with
            values |= {"sparsity": 0.0, "scope": "global", "score": "l2"}
        device = values["device"] = self.place()
        if device == "cpu" and (self.precision == "tf32" or self.sync_batchnorm):
            what = "precision 'tf32'" if self.precision == "tf32" else "sync_batchnorm"
            raise DcilError(f"{what} needs a GPU, but this run is on the CPU; leave it out, or use --device cuda")
        return ResolvedConfig(**values)

    def place(self) -> str:
        """Return "cpu" or "cuda", with "auto" decided."""
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from JSON types; raises `DcilError` suggesting the nearest field for an unknown one."""
        names = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise unknown("parameter", name, names)
        return cls(**values)

    @property
    def run_id(self) -> str:
        """A readable name and a hash of the resolved fields: the same run has the same id on every machine."""
        return run_id_of(self.resolve().as_dict())

    @property
    def tier(self) -> str:
        """The scale of the run as evidence: "smoke" (digits), "quick" (fewer epochs), "paper" (the full schedule)."""
        if self.dataset == "digits":
            return "smoke"
        return "paper" if self.epochs >= self.recipe().epochs else "quick"


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(RunConfig):
    """A configuration with every field set: `RunConfig.resolve` returns it, a run trains with it, a record holds it."""

    lr: float
    weight_decay: float
    warmup_epochs: int
    warmup_factor: float
    milestones: tuple[int, ...]
    lr_decay: float
    ramp_end: int
    distill_from: int
    image_size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for known in dataclasses.fields(self):
            if getattr(self, known.name) is None:
                raise DcilError(f"{known.name} is None; a resolved configuration has every field set, see `resolve`")


#: The fields added after the first records, with their defaults.
LATER: dict[str, Any] = {
    known.name: known.default for known in dataclasses.fields(RunConfig) if known.metadata["since"] is not None
}


#: The fields that each preset sets; all others are at their defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits", "model": "resnet8", "epochs": 6, "batch_size": 64, "channels_last": True},
    "quick": {"dataset": "cifar10", "model": "resnet20", "epochs": 16, "precision": "bf16", "channels_last": True},
    "paper": {"dataset": "cifar10", "model": "resnet32", "epochs": 300, "precision": "bf16", "channels_last": True},
    "imagenette": {
        "dataset": "imagenette",
        "model": "resnet18",
        "epochs": 12,
        "batch_size": 64,
        "sparsity": 0.8,
        "image_size": 128,
        "precision": "bf16",
        "channels_last": True,
    },
    "imagenet": {
        "dataset": "imagenet",
        "model": "resnet50",
        "epochs": 90,
        "batch_size": 256,
        "sparsity": 0.8,
        "precision": "bf16",
        "channels_last": True,
    },
}


def preset(name: str, **overrides: Any) -> RunConfig:
    """Return a preset's configuration with overrides; an override of `None` means "as in the preset".

    "smoke" takes seconds on any machine, "quick" trains on CIFAR in minutes on a CPU, "paper" is the
    authors' full schedule and wants a GPU. "imagenette" and "imagenet" train torchvision's networks.
    A preset fits the machine: its bf16 becomes float32 where the device has no bf16 instructions and would emulate
    them, twelve times slower on a CPU. An override of the precision is always kept.
    Raises `dcil.DcilError` for an unknown preset or field.

    >>> config = preset("smoke", method="ste", seed=1)
    >>> config.dataset, config.epochs, config.tier
    ('digits', 6, 'smoke')
    >>> preset("smok")
    Traceback (most recent call last):
    dcil.errors.DcilError: unknown preset 'smok': did you mean 'smoke'? Allowed: ...
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    given = {k: v for k, v in overrides.items() if v is not None}
    config = RunConfig.from_dict(PRESETS[name] | given)
    return dataclasses.replace(config, precision="float32") if "precision" not in given and emulates(config) else config


def emulates(config: RunConfig) -> bool:
    """Return whether this machine would emulate the configuration's precision; False if its device is not available."""
    device = torch.device(config.place())
    here = device.type == "cpu" or torch.cuda.is_available()
    return config.precision == "bf16" and here and not machine.has_bf16(device)
