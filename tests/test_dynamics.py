"""Measures of masks and gradients: correct by hand, and without effect on the run."""

import base64
import zlib

import pytest
import torch
from torch import nn

from dcil import dynamics, records
from dcil.dual_path import DualPath, put_masks
from dcil.dynamics import Dynamics
from dcil.errors import DcilError
from dcil.io import bits
from dcil.metrics import evaluate, reestimated
from dcil.train import fit
from dcil.trainer import Trainer


def line(weights=8):
    """Return a linear layer whose weights are prunable."""
    return DualPath(nn.Linear(weights, 1, bias=False), rules=("kept",), prunable=["weight"], per_pass=[])


def put(dual, kept, sparsity):
    mask = torch.zeros(8, dtype=torch.bool)
    mask[list(kept)] = True
    put_masks(dual, {"weight": mask.view(1, 8)}, sparsity)


def test_moments():
    """Masks are stored after every epoch of a short run and sixteen epochs of a long one, always after the last."""
    assert dynamics.moments(3) == [0, 1, 2] and dynamics.moments(16) == list(range(16))
    long = dynamics.moments(300)
    assert len(long) == 16 and long[-1] == 299 and long[0] == 17
    assert dynamics.control_epochs(1) == [0] and dynamics.control_epochs(16) == [7, 15]


def test_ever_kept_and_overlap_by_hand(tiny_config):
    """From the target on, {0, 1} and {1, 2} make three of eight weights ever kept; the mask before shares 2 of 6."""
    dual, config = line(), tiny_config(sparsity=0.75)
    watched = Dynamics(dual, config)
    put(dual, range(6), 0.25)  # before the target
    watched.refreshed()
    assert watched.end_epoch(0) == {}
    put(dual, [0, 1], 0.75)
    watched.refreshed()
    assert watched.end_epoch(1) == {"ever_kept": 0.25}
    put(dual, [1, 2], 0.75)
    watched.refreshed()
    assert watched.end_epoch(1) == {"ever_kept": 0.375}
    summary = watched.summary()
    overlaps = {row["epoch"]: row["jaccard"] for row in summary["overlap_with_last"]}
    assert overlaps == {0: round(2 / 6, 5), 1: 1.0}
    assert dynamics.final_mask({"masks": summary}).tolist() == [False, True, True] + [False] * 5


def test_a_sample_of_a_large_network(monkeypatch, tiny_config):
    """Where eight weights are too many, every third is sampled, and the record says so."""
    monkeypatch.setattr(dynamics, "SAMPLE", 3)
    dual = line()
    put(dual, [0, 6, 7], 0.5)
    watched = Dynamics(dual, tiny_config(sparsity=0.5))
    watched.refreshed()
    watched.end_epoch(1)
    summary = watched.summary()
    assert (summary["stride"], summary["count"]) == (3, 3)
    assert dynamics.final_mask({"masks": summary}).tolist() == [True, False, True]


def test_gradients_are_compared_on_pruned_weights_only():
    """Gradients opposed on one pruned weight and aligned on another have cosine 0; kept weights do not count."""
    dual = line()
    put(dual, range(2, 8), 0.25)
    a = {"weight": torch.tensor([[2.0, 2, 5, 5, 5, 5, 5, 5]])}
    b = {"weight": torch.tensor([[-1.0, 1, 9, 9, 9, 9, 9, 9]])}
    none = {"empty": 0, "empty_share": 0.0}
    assert dynamics.compare_gradients(a, b, dual) == {"cosine": 0.0, "cosine_rest": 0.0, "norm_ratio": 2.0} | none
    assert dynamics.compare_gradients(a, a, dual) == {"cosine": 1.0, "cosine_rest": 1.0, "norm_ratio": 1.0} | none


def test_an_empty_channel_by_hand():
    """The norm of an empty channel divides by √ε, so STE's gradient there is known by hand, and large."""
    torch.manual_seed(0)
    images, pull = torch.randn(8, 3, 5, 5).double(), torch.randn(8, 2, 5, 5).double()
    norm = nn.BatchNorm2d(2, eps=1e-4)
    dual = DualPath(
        nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), norm).double(),
        rules=("straight_through",),
        prunable=["0.weight"],
        per_pass=[],
    )
    mask = torch.tensor([[0, 0, 0], [1, 1, 0]], dtype=torch.bool).view(2, 3, 1, 1)
    put_masks(dual, {"0.weight": mask}, 0.5)
    assert dynamics.empty_channels(mask).tolist() == [True, False]

    def gradient(rule):
        return dual.gradients(lambda out: (out * pull).sum(), images, rule=rule)

    straight, whole = gradient("straight_through"), gradient("dense")
    centred = pull[:, 0] - pull[:, 0].mean()
    by_hand = (centred[:, None] * images).sum((0, 2, 3)) / norm.eps**0.5  # γ is 1
    assert straight["0.weight"][0].flatten().tolist() == pytest.approx(by_hand.tolist(), rel=1e-9)

    found = dynamics.compare_gradients(straight, whole, dual)
    pushes = straight["0.weight"][~mask]  # of the empty channel's three weights, then of the other's one
    assert found["empty"] == 1
    assert found["empty_share"] == pytest.approx(float(pushes[:3].square().sum() / pushes.square().sum()), abs=1e-5)
    assert found["norm_ratio"] > 10 and abs(found["cosine_rest"]) == 1.0  # of a single weight, so 1 or -1


@pytest.mark.parametrize("method", ["ste", "dcil", "dense"])
def test_a_record_holds_them(method, tiny_config, tiny_dataset, tmp_path):
    """A record has gradients, controls and a mask of its own sparsity; that of dense training has controls only."""
    record = fit(tiny_config(method=method), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    last = record["curve"][-1]
    assert set(last["reestimated"]) == set(last["test"])
    if method == "dense":
        assert "masks" not in record and "gradients" not in last and dynamics.final_mask(record) is None
        return
    assert -1 <= last["gradients"]["cosine"] <= 1 and last["gradients"]["norm_ratio"] > 0
    assert 0 <= last["gradients"]["empty_share"] <= 1 and last["gradients"]["empty"] >= 0
    mask = dynamics.final_mask(record)
    assert 1 - mask.mean() == pytest.approx(last["sparsity"], abs=1e-7)
    assert [row["epoch"] for row in record["masks"]["overlap_with_last"]] == [0, 1]
    assert record["masks"]["overlap_with_last"][-1]["jaccard"] == 1.0
    assert last["ever_kept"] >= mask.mean() - 1e-6


def test_measuring_changes_nothing(tiny_config, tiny_dataset):
    """Measuring leaves weights, masks, norm statistics and the random state as they were."""
    run = Trainer(tiny_config(), tiny_dataset)
    steps = run.run(progress=False)
    while not next(steps):
        pass
    run.dual.target_sparsity = 0.8
    before = {name: t.clone() for name, t in run.dual.state_dict().items() if torch.is_tensor(t)}
    random = torch.get_rng_state()
    run.curve.pop()
    assert {"gradients", "reestimated"} <= set(run.measure())
    assert all(torch.equal(t, run.dual.state_dict()[name]) for name, t in before.items())
    assert torch.equal(random, torch.get_rng_state()) and run.dual.training
    assert all(p.grad is None or p.grad.abs().sum() > 0 for p in run.dual.parameters())


def test_reestimation_heals_spoilt_statistics(tiny_config, tiny_dataset):
    """Inside the block, logits do not depend on the running statistics, which are restored afterwards."""
    run = Trainer(tiny_config(method="dense"), tiny_dataset)
    images, _ = next(iter(run.test))

    def logits():
        run.dual.eval()
        found = run.dual(images)[0].detach()
        run.dual.train()
        return found

    with reestimated(run.dual, 0, run.loader.epoch(0), run.engine):
        wanted = logits()
    for norm in (m for m in run.dual.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_var.fill_(1e6)
    spoilt = evaluate(run.dual, ("dense",), run.test, run.engine)
    with reestimated(run.dual, 0, run.loader.epoch(0), run.engine):
        assert torch.equal(logits(), wanted)
    assert not torch.allclose(logits(), wanted)
    assert evaluate(run.dual, ("dense",), run.test, run.engine) == spoilt  # everything was restored
    assert all((m.running_var == 1e6).all() for m in run.dual.modules() if isinstance(m, nn.BatchNorm2d))


def test_shared_norms_are_reestimated_for_one_pass_alone(tiny_config, tiny_dataset):
    """Inside the block, norms that both passes share have the statistics that the one pass, exported, finds alone."""
    run = Trainer(tiny_config(method="dcil_shared_norms"), tiny_dataset)
    for _ in run.run(progress=False):
        pass
    means = []
    for index, name in enumerate(run.dual.pass_names):
        plain = run.dual.export(name).train()
        alone = [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in alone:
            norm.reset_running_stats()
            norm.momentum = None
        for images, _ in run.loader.epoch(0):
            plain(images)
        with reestimated(run.dual, index, run.loader.epoch(0), run.engine):
            here = [m for m in run.dual.net.modules() if isinstance(m, nn.BatchNorm2d)]
            for one, other in zip(here, alone, strict=True):
                torch.testing.assert_close(one.running_mean, other.running_mean)
                torch.testing.assert_close(one.running_var, other.running_var)
            means.append(here[-1].running_mean.clone())
    assert not torch.allclose(*means)


def test_rigl_exchanges_while_it_trains(tiny_config, tiny_dataset, tmp_path, monkeypatch):
    """RigL gets gradients although masks are chosen with gradients off, so weights do change sides."""
    monkeypatch.setattr("dcil.refresh.REGROW_PERIOD", 2)
    record = fit(tiny_config(method="rigl"), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    assert [row["flips"] > 0 for row in record["curve"]] == [True, False]
    assert record["curve"][0]["refreshes"] == 2


def test_a_damaged_mask_is_named(tiny_config, tiny_dataset, tmp_path):
    """A mask that is not base64, or of the wrong length, is refused, by the record's validation too."""
    record = fit(tiny_config(), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    for spoilt in ("not base64!", base64.b64encode(zlib.compress(b"short")).decode()):
        bad = record | {"masks": record["masks"] | {"final": spoilt}}
        with pytest.raises(DcilError, match="final mask in the record .* cannot be read"):
            dynamics.final_mask(bad)
        with pytest.raises(DcilError, match="final mask"):
            records.validate(bad)


def test_a_mask_that_the_run_cannot_have_is_refused(tiny_config, tiny_dataset, tmp_path):
    """One kept weight more than the curve says is enough, and so is a sample where the whole mask would fit."""
    record = fit(tiny_config(), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)
    mask = torch.from_numpy(dynamics.final_mask(record).copy())
    mask[mask.logical_not().nonzero()[0]] = True
    bad = record | {"masks": record["masks"] | {"final": bits.to_text(bits.pack(mask))}}
    with pytest.raises(DcilError, match="the final mask does not have the sparsity that the curve says"):
        records.validate(bad)
    bad = record | {"masks": record["masks"] | {"stride": 2, "count": len(mask) // 2}}
    with pytest.raises(DcilError, match="masks.stride is 2, though a sample of .* would have room for more"):
        records.validate(bad)
