"""Mask policies and rivals, each against its source's update rule, by hand on a small network."""

import dataclasses
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dcil import losses, masks, methods, refresh
from dcil.config import RunConfig
from dcil.dual_path import DualPath
from dcil.errors import DcilError
from dcil.refresh import Change, generator_of
from dcil.trainer import Trainer

CONFIG = RunConfig(epochs=20, ramp_end=10, mask_period=4, sparsity=0.75, device="cpu", seed=3).resolve()


def small():
    """Return two convolutions of 36 and 64 weights, all of different sizes."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 16, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.randperm(36).view(4, 1, 3, 3) + 1.0)
        net[2].weight.copy_(-(torch.randperm(64).view(16, 4, 1, 1) + 1.5))
    return DualPath(net, rules=("kept",), per_pass=[])


def apply(dual, how, sparsity=0.75, share=0.0, step=0, gradients=dict):
    return refresh.refresh(dual, Change(sparsity, how, share), CONFIG, step, gradients)


def kept(dual):
    return {name: int(m.sum()) for name, m in dual.masks.items()}


# --- when


def changes(method, steps_per_epoch=5, config=CONFIG):
    """Return all changes that a method asks for, as {step: change}."""
    policy = methods.get(method).masks
    every = {s: policy(config, s / steps_per_epoch, s) for s in range(config.epochs * steps_per_epoch)}
    return {step: change for step, change in every.items() if change}


def test_schedules():
    """Static methods act once, gradual ones on the cubic ramp every 4 steps."""
    assert list(changes("static")) == list(changes("random")) == list(changes("random_erk")) == [0]
    assert changes("dense") == {}
    gradual = changes("gmp")
    assert list(gradual) == list(changes("ste")) == list(range(0, 100, 4))
    assert all(c.sparsity == masks.cubic_sparsity(s // 5, 0.75, 10) and c.how == "shrink" for s, c in gradual.items())
    assert {c.how for c in changes("dcil").values()} == {"largest"}


def test_st3_moves_at_every_step():
    """ST-3 chooses masks before each step, at the sparsity of that step, so each of its epochs has five targets."""
    asked = changes("st3_stepwise")
    assert list(asked) == list(range(100)) and {c.how for c in asked.values()} == {"largest"}
    assert [c.sparsity for c in list(asked.values())[:51:25]] == pytest.approx([0, 0.75 * (1 - 0.5**3), 0.75])
    assert all(c.sparsity == pytest.approx(0.75 * (1 - (1 - s / 50) ** 3)) for s, c in asked.items() if s <= 50)
    assert {c.sparsity for s, c in asked.items() if s >= 50} == {0.75}


def test_gradual_pruning_by_the_papers_period():
    """It prunes every 100 steps and at step 450, the end of the ramp, to the sparsity of that step, and never again."""
    asked = changes("gmp_stepwise", steps_per_epoch=45)
    assert list(asked) == [0, 100, 200, 300, 400, 450] and {c.how for c in asked.values()} == {"shrink"}
    by_hand = [0.75 * (1 - (1 - s / 450) ** 3) for s in (0, 100, 200, 300, 400)] + [0.75]
    assert [c.sparsity for c in asked.values()] == pytest.approx(by_hand) and asked[450].sparsity == 0.75
    assert list(changes("gmp_stepwise", steps_per_epoch=100)) == list(range(0, 1001, 100))


def test_one_shot_prunes_at_the_end_of_the_ramp():
    """Nothing is pruned before epoch 10; from then on the final sparsity is held."""
    asked = changes("one_shot")
    assert min(asked) == 50 and set(asked.values()) == {Change(0.75, "hold")}


def test_acdc_alternates():
    """Of twenty epochs two are dense, then turns of one epoch follow, sparse first; from epoch 17 on all are sparse."""
    turns = [change.sparsity > 0 for step, change in changes("acdc").items() if step % 5 == 0]
    assert turns == [False, False, *[True, False] * 7, True, True, True, True]


@pytest.mark.parametrize("epochs", range(1, 41))
def test_acdc_ends_sparse(epochs):
    """The last epoch is sparse, in the shortest run too."""
    config = RunConfig(method="acdc", epochs=epochs, device="cpu").resolve()
    assert refresh.alternating(config, epochs - 1, epochs - 1).sparsity == 0.9


def test_regrowth_slows_down_and_stops():
    """RigL exchanges, every 100 steps of the ramp, a share that falls from 0.3 to 0 on a cosine."""
    asked = changes("rigl", steps_per_epoch=100)
    assert list(asked) == list(range(0, 1000, 100))
    assert asked[0].how == "random_erk" and {asked[s].how for s in list(asked)[1:]} == {"regrow_gradient"}
    assert asked[500].share == pytest.approx(0.15)
    assert asked[100].share == pytest.approx(0.15 * (1 + math.cos(0.1 * math.pi)))
    assert {c.how for c in list(changes("set", steps_per_epoch=100).values())[1:]} == {"regrow_random"}


def test_rigl_by_its_code_slows_down_step_by_step():
    """It exchanges weights at the same steps as before, but the share follows the step, not its epoch."""
    asked, before = (changes(method, steps_per_epoch=45) for method in ("rigl_returning", "rigl"))
    assert list(asked) == list(before) == [0, 100, 200, 300, 400] and asked[0] == before[0]
    for step, change in list(asked.items())[1:]:
        assert change.how == "regrow_returning"
        assert change.share == pytest.approx(0.15 * (1 + math.cos(math.pi * step / 450)))
        assert before[step].share == pytest.approx(0.15 * (1 + math.cos(math.pi * (step // 45) / 10)))


SCHEDULES = [(epochs, steps, period) for epochs in (1, 2, 3, 4, 5, 7, 16) for steps in (1, 2, 3, 23)
             for period in (1, 3, 16, 100)]  # fmt: skip


@pytest.mark.parametrize("ramp_end", [None, 0, 3])
@pytest.mark.parametrize("method", methods.METHODS)
def test_every_schedule_ends_at_its_target_or_is_refused(method, ramp_end):
    """Whatever the epochs, steps and period, the last change is to the target, or an error says why not."""
    refused = 0
    for epochs, steps, period in SCHEDULES:
        config = RunConfig(method=method, epochs=epochs, mask_period=period, ramp_end=ramp_end, device="cpu").resolve()
        asked = [change.sparsity for change in changes(method, steps, config).values()]
        try:
            refresh.require_target(methods.get(method).masks, config, steps)
        except DcilError:
            refused += 1
            assert not asked or asked[-1] != config.sparsity
        else:
            assert not methods.get(method).prunes or asked[-1] == config.sparsity
    masks = methods.get(method).masks
    by_period = masks in (refresh.scheduled, refresh.shrinking)  # the others act at the ramp's end, if it comes
    at_its_end = masks in (refresh.one_shot, refresh.stepwise, refresh.gradual)
    assert (refused > 0) == (by_period and ramp_end != 0 or at_its_end and ramp_end == 3)


@pytest.mark.parametrize(("epochs", "ends_at", "mend"), [(4, "0", 3), (16, r"0\.8958\d*", 12)])
def test_a_period_that_misses_the_end_of_the_ramp(epochs, ends_at, mend):
    """If no masks are chosen after the ramp, the error suggests a period, which suffices."""
    config = RunConfig(epochs=epochs, batch_size=64, device="cpu").resolve()
    message = rf"end at sparsity {ends_at}, not 0\.9: .*--mask-period to {mend} or less"
    with pytest.raises(DcilError, match=message) as caught:
        refresh.require_target(refresh.scheduled, config, 3)
    refresh.require_target(refresh.scheduled, dataclasses.replace(config, mask_period=mend), 3)
    assert f"step {config.ramp_end * 3} of {epochs * 3}" in str(caught.value)


def test_a_ramp_that_outlasts_the_run(tiny_config, tiny_dataset):
    """It is refused before the first step, whatever the period."""
    with pytest.raises(DcilError, match=r"ramp_end is 2, .* 2 epochs.*--ramp-end to 1 or less"):
        Trainer(tiny_config(ramp_end=2, mask_period=1), tiny_dataset)


# --- how


def test_shrinking_never_revives():
    """A pruned weight that outgrows the kept ones stays out, and the count follows the rule."""
    dual = small()
    apply(dual, "shrink", 0.5)
    gone = {n: m.logical_not() for n, m in dual.masks.items()}
    with torch.no_grad():
        for name, weight in dual.weights.items():
            weight[gone[name]] = 1000.0
    apply(dual, "shrink", 0.75)
    assert not any((dual.masks[n] & g).any() for n, g in gone.items())
    assert sum(kept(dual).values()) == 100 - 75 - 1
    before = {n: m.clone() for n, m in dual.masks.items()}
    apply(dual, "shrink", 0.75)  # the same sparsity again: the same masks
    assert all(torch.equal(before[n], m) for n, m in dual.masks.items())


def test_holding():
    """The same sparsity changes nothing, another chooses anew, 0 brings every weight back."""
    dual = small()
    apply(dual, "hold", 0.75)
    before = {n: m.clone() for n, m in dual.masks.items()}
    with torch.no_grad():
        for weight in dual.weights.values():
            weight.copy_(weight.flip(0))
    chosen = dual.refreshes
    assert apply(dual, "hold", 0.75) is None and dual.refreshes == chosen
    assert all(torch.equal(before[n], m) for n, m in dual.masks.items())
    apply(dual, "hold", 0.0)
    assert sum(kept(dual).values()) == 100
    assert apply(dual, "hold", 0.75) == 76


def test_uniform_masks():
    """Every layer keeps the same share, to within one weight; another step keeps others."""
    dual, other = small(), small()
    apply(dual, "random_uniform")
    assert sorted(kept(dual).values()) == [8, 16] or sorted(kept(dual).values()) == [9, 15]
    refresh.refresh(other, Change(0.75, "random_uniform"), CONFIG, 1, dict)
    assert any(not torch.equal(dual.masks[n], m) for n, m in other.masks.items())


def test_erdos_renyi_kernel_by_hand():
    """36 weights in 4×1×3×3 and 64 in 16×4×1×1: densities in proportion to 11/36 and 22/64."""
    shapes = {"a": torch.Size((4, 1, 3, 3)), "b": torch.Size((16, 4, 1, 1))}
    shares = masks.erdos_renyi_kernel(shapes, 0.75)
    factor = 25 / (11 + 22)
    assert shares == pytest.approx({"a": factor * 11 / 36, "b": factor * 22 / 64})
    # A layer that would need more than all its weights keeps them all, and the others share the rest.
    shapes = {"tiny": torch.Size((2, 1, 1, 1)), "big": torch.Size((100, 10, 3, 3))}
    shares = masks.erdos_renyi_kernel(shapes, 0.5)
    assert shares["tiny"] == 1 and shares["tiny"] * 2 + shares["big"] * 9000 == pytest.approx(0.5 * 9002)


def test_allocation_adds_up():
    """Counts sum to the total and follow the shares, rounded up where remainders are largest."""
    sizes = {"a": 10, "b": 10, "c": 4}
    assert masks.allocate({"a": 0.33, "b": 0.34, "c": 0.9}, sizes, 10) == {"a": 3, "b": 3, "c": 4}
    assert masks.allocate({"a": 0.33, "b": 0.34, "c": 0.9}, sizes, 11) == {"a": 3, "b": 4, "c": 4}
    assert masks.allocate({"a": 0.35, "b": 0.34, "c": 0.9}, sizes, 11) == {"a": 4, "b": 3, "c": 4}
    assert masks.allocate({"a": 0.3, "b": 0.3, "c": 1.0}, sizes, 9) == {"a": 3, "b": 3, "c": 3}


def test_drop_and_grow_by_hand():
    """Of four kept weights the smallest go, and those with the largest gradients elsewhere come in."""
    weight = torch.tensor([-5.0, -0.1, 3.0, 0.2, 0.0, 0.0])
    mask = torch.tensor([True, True, True, True, False, False])
    growth = torch.tensor([9.0, 9.0, 9.0, 9.0, 0.5, 0.7])
    assert masks.drop_and_grow(weight, mask, 0.25, growth).tolist() == [True, False, True, True, False, True]
    assert masks.drop_and_grow(weight, mask, 0.5, growth).tolist() == [True, False, True, False, True, True]
    assert torch.equal(masks.drop_and_grow(weight, mask, 0.0, growth), mask)
    # No more go than can come in: 0.75 of the four are three, but only two are out.
    assert masks.drop_and_grow(weight, mask, 0.75, growth).tolist() == [True, False, True, False, True, True]


def test_what_was_dropped_may_return_by_hand():
    """In RigL's code all weights but the survivors are candidates, those just dropped (0.1 and 0.2) among them."""
    weight = torch.tensor([-5.0, -0.1, 3.0, 0.2, 0.0, 0.0])
    mask = torch.tensor([True, True, True, True, False, False])
    for growth, after in (
        ([9.0, 9.0, 9.0, 9.0, 0.5, 0.7], [True, True, True, True, False, False]),
        ([9.0, 0.6, 9.0, 0.1, 0.5, 0.7], [True, True, True, False, False, True]),
        ([9.0, 0.1, 9.0, 0.2, 0.5, 0.7], [True, False, True, False, True, True]),
    ):
        assert masks.drop_and_grow(weight, mask, 0.5, torch.tensor(growth), returning=True).tolist() == after


def test_what_returns_goes_on_and_what_grows_starts_at_zero():
    """The smallest kept weight, where the gradient is largest, returns with its value."""
    dual = small()
    apply(dual, "random_erk")
    before = {n: m.clone() for n, m in dual.masks.items()}
    was = {n: w.detach().clone() for n, w in dual.weights.items()}
    smallest = {n: torch.where(m, was[n].abs(), math.inf).argmin() for n, m in before.items()}
    slope = {n: torch.rand(w.shape) for n, w in dual.weights.items()}
    for name, place in smallest.items():
        slope[name].view(-1)[place] = -9.0
    apply(dual, "regrow_returning", share=0.3, step=100, gradients=lambda: slope)
    assert kept(dual) == {n: int(m.sum()) for n, m in before.items()}
    for name, mask in dual.masks.items():
        weight, grown, stayed = dual.weights[name], mask & ~before[name], mask & before[name]
        assert stayed.view(-1)[smallest[name]] and torch.equal(weight[stayed], was[name][stayed])
        assert grown.any() and not weight[grown].any()


def test_rigl_grows_by_the_dense_gradient_and_from_zero():
    """Weights grow where |gradient| at the sparse network is largest, and start at zero."""
    dual = small()
    apply(dual, "random_erk")
    images, target = torch.randn(8, 1, 5, 5), torch.randn(8, 16, 3, 3)
    found = dual.gradients(lambda out: F.mse_loss(out, target), images, rule="straight_through")
    sparse = dual.export()
    F.mse_loss(sparse(images), target).backward()  # the plain sparse network's own gradient
    for got, parameter in zip(found.values(), sparse.parameters(), strict=True):
        assert torch.allclose(got, parameter.grad, rtol=1e-4, atol=1e-4)
    before = {n: m.clone() for n, m in dual.masks.items()}
    apply(dual, "regrow_gradient", share=0.3, step=100, gradients=lambda: found)
    assert kept(dual) == {n: int(m.sum()) for n, m in before.items()}
    for name, mask in dual.masks.items():
        grown, stayed_out = mask & ~before[name], ~mask & ~before[name]
        assert int(grown.sum()) == int(0.3 * int(before[name].sum())) > 0
        assert found[name].abs()[grown].min() >= found[name].abs()[stayed_out].max()
        assert not dual.weights[name][grown].any() and dual.weights[name][mask & before[name]].all()


def test_set_grows_at_random_and_repeatably():
    """The same seed and step grow the same weights; another step grows others."""
    results = []
    for step in (100, 100, 200):
        torch.manual_seed(0)
        dual = small()
        apply(dual, "random_erk")
        apply(dual, "regrow_random", share=0.5, step=step)
        results.append(torch.cat([m.flatten() for m in dual.masks.values()]))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert torch.rand(1, generator=generator_of(CONFIG, 5)) == torch.rand(1, generator=generator_of(CONFIG, 5))


# --- phases and ablations


def test_phases():
    """The mutual loss sets in at `distill_from` and grows over `distill_warmup` epochs; two passes every k-th step."""
    config = RunConfig(distill_from=3, distill_warmup=3, dense_every=4, device="cpu").resolve()
    assert [methods.phase_of(config, e, 0).mutual for e in range(8)] == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert [methods.phase_of(config, 0, s).passes for s in range(6)] == [2, 1, 1, 1, 2, 1]
    at_once = RunConfig(distill_from=3, device="cpu").resolve()
    assert [methods.phase_of(at_once, e, 7) for e in (2, 3)] == [(0.0, 2), (1.0, 2)]


def logits():
    return {"sparse": torch.randn(6, 10, requires_grad=True), "dense": torch.randn(6, 10, requires_grad=True)}


def reached(method, mutual=1.0):
    """Return, for each mutual term of a method's loss, the passes whose logits it moves."""
    out = logits()
    parts = methods.get(method).loss(out, torch.arange(6), CONFIG, methods.Phase(mutual, 2))
    terms = {name: part for name, part in parts.items() if name.startswith("kl")}
    moved = {}
    for term, value in terms.items():
        grads = torch.autograd.grad(value, list(out.values()), allow_unused=True, retain_graph=True)
        moved[term] = [name for name, grad in zip(out, grads, strict=True) if grad is not None and grad.any()]
    return moved


def test_who_learns_from_whom():
    """Each ablation of the mutual loss moves what its name says."""
    assert reached("dcil") == {"kl_sparse": ["sparse"], "kl_dense": ["dense"]}
    assert reached("dcil_no_mutual") == {}
    assert reached("dcil_sparse_learns") == {"kl_sparse": ["sparse"]}
    assert reached("dcil_dense_learns") == {"kl_dense": ["dense"]}
    assert reached("dcil_not_detached") == {"kl_sparse": ["sparse", "dense"], "kl_dense": ["sparse", "dense"]}
    assert reached("dcil", 0.0) == {}


@pytest.mark.parametrize(("method", "teaches"), [("ste", False), ("dcil", True)])
def test_a_run_sets_smoothing_and_temperature(method, teaches):
    """A loss has its configuration's smoothing and temperature, and its mutual terms are weighted by the phase."""
    config = RunConfig(label_smoothing=0.2, temperature=5.0, device="cpu").resolve()
    out, labels = logits(), torch.arange(6)
    lessons = {name: 0.5 * value for name, value in losses.divergences(out, 5.0).items()} if teaches else {}
    expected = losses.cross_entropies(out, labels, 0.2) | lessons
    assert methods.get(method).loss(out, labels, config, methods.Phase(0.5, 2)) == expected


@pytest.mark.parametrize(
    "method, norms, heads",
    [("dcil", 2, 2), ("dcil_shared_norms", 1, 2), ("dcil_shared_head", 2, 1), ("dcil_shared", 1, 1)],
)
def test_what_the_passes_share(method, norms, heads, tiny_config, tiny_dataset):
    """Each variant has one or two sets of batch norms and one or two heads."""
    dual = Trainer(tiny_config(method=method), tiny_dataset).dual
    kinds = [type(m).__name__ for m in dual.modules()]
    assert kinds.count("Linear") == heads and kinds.count("BatchNorm2d") == 9 * norms


def test_ste_under_the_same_split(tiny_config, tiny_dataset):
    """The dense pass of `ste_split` trains its norms and head, and no shared weight."""
    run = Trainer(tiny_config(method="ste_split"), tiny_dataset)
    _, dense = run.dual(torch.randn(4, 3, 8, 8))
    names = dict(run.dual.named_parameters())
    grads = torch.autograd.grad(dense.sum(), list(names.values()), allow_unused=True)
    trained = {name for name, grad in zip(names, grads, strict=True) if grad is not None}
    assert trained == {name for name in names if name.startswith("own.")}


def test_a_dense_pass_every_fourth_step(tiny_config, tiny_dataset, monkeypatch):
    """Between them the sparse pass runs alone and, without decay and momentum, pruned weights stand still."""
    config = tiny_config(dense_every=4, weight_decay=0.0, momentum=0.0, sparsity=0.8, ramp_end=0, mask_period=100)
    run, moved, counts = Trainer(config, tiny_dataset), [], []
    passes = run.engine.passes
    monkeypatch.setattr(run.engine, "passes", lambda m, x, n=None: counts.append(n) or passes(m, x, n))
    steps = run.run(progress=False)
    weight, mask = next(iter(run.dual.weights.values())), next(iter(run.dual.masks.values()))
    before = weight.detach().clone()
    for _ in range(3):
        next(steps)
        moved.append(bool((weight.detach() - before)[~mask].any()))
        before = weight.detach().clone()
    assert counts == [2, 1, 1] and moved == [True, False, False]


def test_methods_name_their_source():
    """Every method has a summary of its own, and a source: a year, a page of arXiv, the authors' code or this book."""
    rows = list(methods.METHODS.values())
    assert all(m.summary for m in rows) and len({m.summary for m in rows}) == len(rows)
    places = r"(19|20)\d\d|arXiv \d{4}\.\d{5}|authors' code|of this book|usual training"
    assert [m.name for m in rows if not re.search(places, m.source)] == []
