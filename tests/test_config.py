"""What a configuration accepts, how the authors' schedule scales, and what a run is called."""

import dataclasses

import numpy as np
import pytest
import torch

from dcil import machine
from dcil.config import DATASETS, LATER, PRESETS, RESNET, ResolvedConfig, RunConfig, preset, run_id_of
from dcil.errors import DcilError
from dcil.lab.runs.compared import COMPARED

BAD = [
    ({"sparsity": 90}, r"sparsity is 90.*\[0, 1\); did you mean 0.9\?"),
    ({"sparsity": 1.0}, r"sparsity is 1.0.*\[0, 1\)$"),
    ({"sparsity": -0.1}, r"sparsity is -0.1.*\[0, 1\)$"),
    ({"sparsity": float("nan")}, r"\[0, 1\)"),
    ({"sparsity": "0.9"}, "sparsity is '0.9'; it must be a number"),
    ({"sparsity": True}, "sparsity is True; it must be a number"),
    ({"sparsity": None}, "sparsity is None"),
    ({"method": "dcl"}, "unknown method 'dcl'.*did you mean 'dcil'"),
    ({"model": "resnet23"}, "unknown model 'resnet23'.*did you mean 'resnet32'"),
    ({"model": ["resnet20"]}, "unknown model"),
    ({"dataset": "cifar-10"}, "unknown dataset 'cifar-10'.*did you mean 'cifar10'"),
    ({"scope": "globl"}, "did you mean 'global'"),
    ({"score": "w2"}, "unknown score 'w2'"),
    ({"precision": "bfloat16"}, "unknown precision 'bfloat16'"),
    ({"device": "gpu"}, "unknown device 'gpu'"),
    ({"epochs": 0}, "epochs is 0; it must be a whole number of at least 1"),
    ({"epochs": 2.0}, "epochs is 2.0; it must be a whole number"),
    ({"epochs": "16"}, "epochs is '16'"),
    ({"epochs": None}, "epochs is None"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"mask_period": 0}, "mask_period is 0"),
    ({"image_size": 4}, "image_size is 4.*at least 8"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 2**40}, "seed is 1099511627776"),
    ({"seed": True}, "seed is True"),
    ({"ramp_end": -1}, "ramp_end is -1"),
    ({"lr": 0}, "lr is 0.*positive"),
    ({"lr": float("inf")}, "lr is inf.*positive"),
    ({"lr": "fast"}, "lr is 'fast'; it must be a number"),
    ({"temperature": -2}, "temperature is -2"),
    ({"temperature": 1e20}, r"temperature is 1e\+20.*at most 1e\+06"),  # its square would be infinite
    ({"momentum": 1.0}, r"momentum is 1.0; it must be in \[0, 1\)"),
    ({"weight_decay": -1e-4}, "weight_decay is -0.0001"),
    ({"milestones": "150"}, "milestones is '150'; it must be a list"),
    ({"milestones": (1.5,)}, "milestones is"),
    ({"milestones": 5}, "milestones is 5"),
    ({"channels_last": "no"}, "channels_last is 'no'; it must be true or false"),
]


@pytest.mark.parametrize(("values", "message"), BAD, ids=lambda v: str(v)[:40])
def test_bad_values_are_refused(values, message):
    """The error says what came, what was expected and, if it can tell, what was meant."""
    with pytest.raises(DcilError, match=message):
        RunConfig.from_dict(values)


def test_whole_numbers_of_numpy():
    """They are stored as Python's, so that the run's id is the same."""
    config = RunConfig(seed=np.int64(3), epochs=np.int32(4), milestones=[np.int64(2)])
    assert config == RunConfig(seed=3, epochs=4, milestones=(2,)) and type(config.seed) is int
    assert config.run_id == RunConfig(seed=3, epochs=4, milestones=(2,)).run_id


@pytest.mark.parametrize("tier, device", [("quick", "cpu"), ("paper", "cuda")])
def test_presets_give_what_is_compared(tier, device, monkeypatch):
    """A run of the preset, as CONTRIBUTING.md shows it, can be compared with the book's records of its tier."""
    monkeypatch.setattr(machine, "has_bf16", lambda device: True)
    config = preset(tier, device=device).resolve()
    assert config.tier == tier and config.as_dict().items() >= COMPARED[tier].items()


@pytest.mark.parametrize("method", ["random", "random_erk", "set", "rigl"])
@pytest.mark.parametrize("asked", [{"scope": "filter"}, {"score": "l1"}], ids=str)
def test_a_choice_that_the_method_does_not_make(method, asked):
    """Methods that keep a share of each layer refuse a scope or score instead of ignoring it."""
    with pytest.raises(DcilError, match=f"{next(iter(asked))} .*method '{method}' keeps a share of each layer"):
        RunConfig(method=method, **asked)
    assert RunConfig(method="gmp", **asked).run_id != RunConfig(method="gmp").run_id
    assert RunConfig(method="dense", **asked).run_id == RunConfig(method="dense").run_id  # selects nothing


@pytest.mark.parametrize("method", ["st3", "st3_stepwise", "dcil_soft"])
@pytest.mark.parametrize("scope", ["layer", "filter"])
def test_a_soft_threshold_is_one_over_all_layers(method, scope):
    """Other scopes are refused: the largest pruned weight of all could zero nearly all that one layer keeps."""
    with pytest.raises(DcilError, match=f"scope is '{scope}', but method '{method}' has one soft threshold"):
        RunConfig(method=method, scope=scope)


@pytest.mark.parametrize(
    ("method", "ignored", "why"),
    [
        ("ste", {"dense_every": 4}, "has one pass"),
        ("ste", {"temperature": 4.0}, "has no mutual loss"),
        ("dcil_no_mutual", {"distill_warmup": 3}, "has no mutual loss"),
    ],
)
def test_settings_that_a_method_ignores_are_refused(method, ignored, why):
    """They would train the same network again under another run id."""
    with pytest.raises(DcilError, match=f"{next(iter(ignored))} is .*method '{method}' {why} and would ignore it"):
        RunConfig(method=method, **ignored)
    assert RunConfig(method="dcil_dense_learns", **ignored).run_id != RunConfig(method="dcil_dense_learns").run_id
    assert RunConfig(method="dcil_no_mutual", dense_every=4).dense_every == 4


def test_unknown_parameter_suggests_the_nearest():
    """A misspelt parameter or preset is answered with the nearest one."""
    with pytest.raises(DcilError, match="unknown parameter 'sparsty'.*did you mean 'sparsity'"):
        RunConfig.from_dict({"sparsty": 0.9})
    with pytest.raises(DcilError, match="did you mean 'quick'"):
        preset("quik")


def test_cuda_asked_for_and_absent(monkeypatch):
    """A run on a GPU has its id anywhere but is refused where there is none; "auto" takes a GPU if there is one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = RunConfig(device="cuda").resolve()
    assert config.device == "cuda" and config.run_id != RunConfig(device="cpu").run_id
    with pytest.raises(DcilError, match="'cuda' but this PyTorch sees no GPU"):
        machine.require(config.device)
    assert RunConfig().resolve().device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert RunConfig().resolve().device == "cuda"


def test_quick_preset_scales_the_schedule():
    """Over 16 epochs the schedule of 300 is scaled in proportion, with four epochs left at the final sparsity."""
    config = preset("quick").resolve()
    assert (config.warmup_epochs, config.milestones, config.ramp_end, config.distill_from) == (1, (8, 12), 12, 4)
    assert (config.epochs, config.lr_decay, config.weight_decay) == (16, 0.1, 1e-4)


def test_full_length_gives_the_authors_numbers():
    """300 epochs of a ResNet and 195 of a Wide ResNet have the authors' schedule, unscaled."""
    resnet = RunConfig(model="resnet32", epochs=300).resolve()
    assert (resnet.warmup_epochs, resnet.warmup_factor, resnet.milestones) == (5, 2.0, (150, 225))
    assert (resnet.ramp_end, resnet.distill_from, resnet.lr_decay, resnet.weight_decay) == (225, 70, 0.1, 1e-4)
    assert (resnet.lr, resnet.momentum, resnet.batch_size, resnet.mask_period) == (0.1, 0.9, 128, 16)
    wide = RunConfig(model="wrn28_2", epochs=195).resolve()
    assert (wide.warmup_epochs, wide.warmup_factor, wide.milestones) == (0, 1.0, (60, 120, 160))
    assert (wide.ramp_end, wide.distill_from, wide.lr_decay, wide.weight_decay) == (120, 70, 0.2, 5e-4)


@pytest.mark.parametrize("epochs", range(1, 40))
def test_every_length_has_an_epoch_at_the_final_sparsity(epochs):
    """However short the run, its last epoch is at the final sparsity, and no milestone lies outside it."""
    config = RunConfig(epochs=epochs).resolve()
    assert config.ramp_end < epochs
    assert all(0 < m < epochs for m in config.milestones)


def test_what_is_given_is_not_scaled():
    """Only fields that were left open are filled in."""
    config = RunConfig(epochs=30, ramp_end=3, milestones=[9, 12], weight_decay=0, warmup_epochs=0).resolve()
    assert (config.ramp_end, config.milestones, config.weight_decay, config.warmup_epochs) == (3, (9, 12), 0.0, 0)


def test_a_resolved_configuration_has_a_type():
    """A resolved configuration is a `RunConfig`, keeps its type through JSON and `replace`, and has no open field."""
    config = RunConfig(model="resnet32", device="cpu").resolve()
    assert type(config) is ResolvedConfig and isinstance(config, RunConfig)
    assert ResolvedConfig.from_dict(config.as_dict()) == config
    assert list(config.as_dict()) == list(RunConfig().as_dict())
    assert type(dataclasses.replace(config, seed=1)) is ResolvedConfig
    with pytest.raises(DcilError, match="milestones is None; a resolved configuration has every field set"):
        dataclasses.replace(config, milestones=None)
    with pytest.raises(DcilError, match="lr is -1.0; it must be a positive number"):
        dataclasses.replace(config, lr=-1)


def test_fields_younger_than_the_first_records():
    """Each has the default by which earlier runs were trained, and at that default is no part of a run's id."""
    assert set(LATER) == {"sync_batchnorm", "distill_warmup", "dense_every", "label_smoothing"}
    config = RunConfig(device="cpu").resolve().as_dict()
    assert {name: config[name] for name in LATER} == LATER
    first = {name: value for name, value in config.items() if name not in LATER}
    assert run_id_of(first) == run_id_of(config) != run_id_of(config | {"dense_every": 2})


def test_run_id_is_golden():
    """The id of the quick preset on a CPU is fixed: a change would orphan every record made so far."""
    assert preset("quick", device="cpu", precision="bf16").run_id == "cifar10-resnet20-dcil-s0.9-e16-seed0-4b78f1ef"


def test_run_id_names_the_run_and_nothing_else():
    """Resolved or not, from JSON or not, 1 or 1.0, a run has one id, and another run has another."""
    config = RunConfig(lr=1, device="cpu")
    same = [config.resolve(), RunConfig.from_dict(config.resolve().as_dict()), RunConfig(lr=1.0, device="cpu")]
    assert {c.run_id for c in same} == {config.run_id}
    assert config.resolve().resolve() == config.resolve()
    for change in ({"seed": 1}, {"epochs": 299}, {"mask_period": 8}, {"milestones": (1,)}):
        assert dataclasses.replace(config, **change).run_id != config.run_id


def test_a_dense_run_has_one_id_whatever_its_sparsity():
    """The dense baselines of 90 % and of 95 % are one run."""
    ids = {RunConfig(method="dense", sparsity=s, device="cpu").run_id for s in (0.0, 0.9, 0.95)}
    assert len(ids) == 1 and "-s0" not in ids.pop()


@pytest.mark.parametrize(
    ("values", "tier"),
    [
        ({"dataset": "digits", "epochs": 300}, "smoke"),
        ({"dataset": "cifar10", "epochs": 16}, "quick"),
        ({"dataset": "cifar10", "epochs": 300}, "paper"),
        ({"dataset": "cifar10", "epochs": 194, "model": "wrn28_2"}, "quick"),
        ({"dataset": "cifar100", "epochs": 195, "model": "wrn28_2"}, "paper"),
    ],
)
def test_tier(values, tier):
    """Digits are of tier smoke at any length; other runs are quick if short and paper at the authors' length."""
    assert RunConfig(**values).tier == tier


def test_every_field_says_why():
    """Each field says why it has its default, and the default lies in the field's range."""
    for field in dataclasses.fields(RunConfig):
        assert len(field.metadata.get("why", "")) > 10, field.name
        assert field.default is None or field.metadata["takes"].accept(field.name, field.default) == field.default


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_the_machine(name, monkeypatch):
    """Without bf16 instructions a preset takes float32 and nothing else changes; an explicit precision stays."""
    monkeypatch.setattr(machine, "has_bf16", lambda device: True)
    usual = preset(name, device="cpu")
    monkeypatch.setattr(machine, "has_bf16", lambda device: False)
    assert preset(name, device="cpu") == dataclasses.replace(usual, precision="float32")
    assert preset(name, device="cpu", precision="bf16").precision == "bf16"
    if not torch.cuda.is_available():  # planned for another machine's device
        assert preset(name, device="cuda").precision == usual.precision


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name):
    """Each preset resolves, and an override of None keeps the preset's value."""
    config = preset(name, seed=None, method="ste")
    assert (config.seed, config.method) == (0, "ste")
    assert config.resolve().dataset in DATASETS
    assert config.resolve().epochs <= RESNET.epochs
