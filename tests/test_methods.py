"""One table of settings drives the same tests for every method. A new method needs its row here, and nothing else."""

import math
from typing import NamedTuple

import pytest
import torch

from dcil import checkpoint, records
from dcil.methods import METHODS
from dcil.rules import RULES
from dcil.train import fit
from dcil.trainer import Trainer, build


class Expected(NamedTuple):
    """What a method's runs must show: its passes, the terms of its loss at the end, and whether it prunes."""

    passes: tuple[str, ...]
    terms: frozenset[str]
    prunes: bool = True


def expect(passes, teaches=(), prunes=True):
    names = tuple(passes.split())
    return Expected(names, frozenset([f"ce_{n}" for n in names] + [f"kl_{n}" for n in teaches]), prunes)


BOTH = ("sparse", "dense")
SETTINGS = {
    "dense": expect("dense", prunes=False),
    "static": expect("sparse"),
    "random": expect("sparse"),
    "random_erk": expect("sparse"),
    "one_shot": expect("sparse"),
    "gmp": expect("sparse"),
    "gmp_stepwise": expect("sparse"),
    "set": expect("sparse"),
    "rigl": expect("sparse"),
    "rigl_returning": expect("sparse"),
    "ste": expect("sparse"),
    "st3": expect("sparse"),
    "st3_stepwise": expect("sparse"),
    "kept_only": expect("sparse"),
    "ste_tenth": expect("sparse"),
    "acdc": expect("sparse"),
    "self_distill": expect("dense twin", ("dense", "twin"), prunes=False),
    "gmp_distill": expect("sparse dense", BOTH),
    "ste_split": expect("sparse dense", BOTH),
    "ste_split_ce": expect("sparse dense"),
    "dcil": expect("sparse dense", BOTH),
    "dcil_soft": expect("sparse dense", BOTH),
    "dcil_no_mutual": expect("sparse dense"),
    "dcil_sparse_learns": expect("sparse dense", ("sparse",)),
    "dcil_dense_learns": expect("sparse dense", ("dense",)),
    "dcil_not_detached": expect("sparse dense", BOTH),
    "dcil_shared_norms": expect("sparse dense", BOTH),
    "dcil_shared_head": expect("sparse dense", BOTH),
    "dcil_shared": expect("sparse dense", BOTH),
    "dcil_dense_all": expect("sparse dense", BOTH),
    "dcil_pruned_pass": expect("sparse pruned", ("sparse", "pruned")),
}

every_method = pytest.mark.parametrize("method", SETTINGS)


@pytest.fixture(autouse=True)
def _frequent_exchanges(monkeypatch):
    """SET and RigL exchange weights every second step, so that runs of eight steps see them do it."""
    monkeypatch.setattr("dcil.refresh.REGROW_PERIOD", 2)


def test_every_method_has_its_row():
    assert list(SETTINGS) == list(METHODS)


@every_method
def test_two_batches(method, tiny_config, tiny_dataset):
    """Two steps run, every loss is finite, and every weight has moved."""
    run = Trainer(tiny_config(method=method, weight_decay=0.0, distill_from=0, ramp_end=0), tiny_dataset)
    before = {name: p.detach().clone() for name, p in run.dual.named_parameters()}
    steps = run.run(progress=False)
    next(steps), next(steps)
    loss = run.tally.loss()
    assert set(loss) - {"total"} == SETTINGS[method].terms and all(map(math.isfinite, loss.values()))
    moved = {name for name, p in run.dual.named_parameters() if not torch.equal(p, before[name])}
    assert moved >= {name for name in before if "weight" in name}


@every_method
def test_sparsity_of_the_exported_network(method, tiny_config, tiny_dataset, tmp_path):
    """The exported network keeps N − int(N·s) − 1 weights, or all N if the method does not prune.

    Under a soft threshold a few of them are zero: those that fell below it since the masks were chosen.
    """
    config, expected = tiny_config(method=method), SETTINGS[method]
    record = fit(config, dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    dual = build(config, 10)
    dual.load_state_dict(checkpoint.load(tmp_path / config.run_id / "checkpoint.pt", config)["model"])
    plain = dict(dual.export().named_parameters())
    n = sum(plain[name].numel() for name in dual.prunable)
    kept = sum(int(plain[name].count_nonzero()) for name in dual.prunable)
    chosen = n - int(n * 0.8) - 1 if expected.prunes else n
    assert kept == chosen or RULES[dual.rules[0]].takes_threshold and 0.95 * chosen < kept < chosen
    assert kept == record["cost"]["nonzeros"]["conv"]
    assert record["curve"][-1]["sparsity"] == pytest.approx(1 - chosen / n, abs=1e-8)
    assert record["status"] == "complete" and len(record["curve"]) == 2
    assert tuple(record["final"]["passes"]) == expected.passes
    assert set(record["curve"][-1]["loss"]) - {"total"} == expected.terms
    assert records.read(tmp_path / config.run_id / "record.json") == record


@every_method
def test_export_equals_its_pass(method, tiny_config, tiny_dataset):
    """The plain network's logits are those of each pass, exactly."""
    run = Trainer(tiny_config(method=method), tiny_dataset)
    for _ in run.run(progress=False):
        pass
    run.dual.eval()
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        for name, logits in zip(run.dual.pass_names, run.dual(images), strict=True):
            assert torch.equal(run.dual.export(name)(images), logits), name


@every_method
def test_one_seed_one_record(method, tiny_config, tiny_dataset, tmp_path):
    """Trained again, a configuration gives the same record, but for times."""
    one, two = (
        fit(tiny_config(method=method), dataset=tiny_dataset, runs_dir=tmp_path / f, progress=False) for f in "ab"
    )
    assert records.without_timing(one) == records.without_timing(two)


@every_method
def test_resume_in_the_middle_of_an_epoch(method, tiny_config, tiny_dataset):
    """A run stopped after five of eight steps and resumed by another trainer ends with the same curve and weights."""
    config = tiny_config(method=method)
    whole, first, second = (Trainer(config, tiny_dataset) for _ in range(3))
    for _ in whole.run(progress=False):
        pass
    steps = first.run(progress=False)
    for _ in range(5):
        next(steps)
    torch.manual_seed(1)
    second.load_state(first.state())
    for _ in second.run(progress=False):
        pass
    for a, b in zip(whole.curve, second.curve, strict=True):
        assert {k: v for k, v in a.items() if k != "time_s"} == {k: v for k, v in b.items() if k != "time_s"}
    assert whole.dynamics.summary() == second.dynamics.summary()
    state = second.dual.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in whole.dual.state_dict().items() if torch.is_tensor(t))


def test_an_idle_second_pass_changes_nothing(tiny_config, tiny_dataset):
    """STE beside a pass that trains no weight and teaches nothing is STE, to the last bit: weights, masks, accuracy."""
    alone, beside = (Trainer(tiny_config(method=name), tiny_dataset) for name in ("ste", "ste_split_ce"))
    for run in (alone, beside):
        for _ in run.run(progress=False):
            pass
    state = beside.dual.net.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in alone.dual.net.state_dict().items())
    assert all(torch.equal(m, beside.dual.masks[name]) for name, m in alone.dual.masks.items())
    assert [r["test"]["sparse"] for r in alone.curve] == [r["test"]["sparse"] for r in beside.curve]


def trained(config, dataset):
    """Train a run; returns its network, and the deployed weights, pruned ones zero, with the kept ones' momentum."""
    run = Trainer(config, dataset)
    for _ in run.run(progress=False):
        pass
    dual, optimizer = run.dual, run.optimizer.state
    momenta = {f"momentum of {n}": optimizer[w]["momentum_buffer"] * dual.masks[n] for n, w in dual.weights.items()}
    return dual, dual.export("sparse").state_dict() | momenta


def alike(one, other):
    """Whether two states are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(t, other[name]) for name, t in one.items())


def test_with_a_fixed_mask_kept_weights_do_not_see_the_rule(tiny_config, tiny_dataset):
    """Under one mask and without a mutual loss, the deployed network is the same to the last bit under any rule.

    Masks chosen anew, a mutual loss or shared norms end that.
    """
    fixed = {"ramp_end": 0, "mask_period": 1000, "momentum": 0.9, "weight_decay": 5e-3, "distill_from": 2}
    methods = ("kept_only", "ste", "ste_tenth", "dcil_no_mutual")  # no gradient, STE's, a tenth of it, the refined one
    runs = [trained(tiny_config(method=name, **fixed), tiny_dataset) for name in methods]
    (first, deployed), *others = runs
    assert all(alike(first.masks, dual.masks) and alike(deployed, its) for dual, its in others)
    layer = first.prunable[-1]
    assert len({tuple(dual.weights[layer][~dual.masks[layer]].tolist()) for dual, _ in runs}) == len(methods)

    for changes in ({"mask_period": 2}, {"method": "dcil", "distill_from": 0}, {"method": "dcil_shared_norms"}):
        _, its = trained(tiny_config(**{"method": "dcil_no_mutual"} | fixed | changes), tiny_dataset)
        assert not alike(deployed, its), changes
