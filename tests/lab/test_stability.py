"""Measures of stability, computed by hand."""

import math

import pandas as pd
import pytest

from dcil import fit
from dcil.lab.runs import stability
from dcil.run_record import Run
from tests.lab.fakes import fake_run


def curve(*top1):
    return [
        {
            "epoch": i,
            "sparsity": 0.9,
            "target_sparsity": 0.9 if i else 0.5,
            "flips": 20,
            "refreshes": 2,
            "time_s": 1.0,
            "train": {"sparse": {"top1": t}},
            "test": {"sparse": {"top1": t}},
        }
        for i, t in enumerate(top1)
    ]


def a_run(**config):
    return fake_run("ste", 0, 1.0, **config) | {"curve": curve(10.0, 30.0, 20.0, 40.0, 41.0, 40.5)}


def test_jitter_by_hand():
    """Jitter is the mean of absolute changes, of which one epoch has none."""
    assert (
        stability.jitter([10.0, 30.0, 20.0, 40.0]) == pytest.approx(50 / 3) and stability.jitter([30.0, 20.0]) == 10.0
    )
    assert math.isnan(stability.jitter([40.0]))


def test_figures_by_hand():
    """An exchange is two flips, per kept weight, after the first epoch at the target; pruning by the ramp is none."""
    run = a_run(milestones=[2, 4], epochs=6)
    found = stability.stability_figures(run)
    assert found["jitter_high"] == 20.0 and found["jitter_mid"] == 20.0 and found["jitter_low"] == 0.5
    assert found["flips"] == pytest.approx(100 * 20 / 2 / 2 / run.cost.nonzeros["conv"])
    ramp = stability.exchange_rates(run | {"curve": [run["curve"][0] | {"flips": 18}, run["curve"][1]]})
    assert ramp[0] == 0.0  # 27 of the 30 weights went: more than 18 flips explain
    assert all(math.isnan(found[k]) for k in ("overlap_mid", "ever_kept", "norm_gap", "cosine"))


def test_an_epoch_exchanges_what_all_its_choices_do():
    """Two choices of masks exchange twice as many weights as one; an epoch without a choice exchanges none."""
    run = a_run(milestones=[2, 4], epochs=6)
    at_a_choice = stability.exchange_rates(run)[2]
    assert at_a_choice > 0
    assert stability.exchanged_an_epoch(run, slice(2, 4)) == pytest.approx(2 * at_a_choice)
    still = run | {"curve": [*run["curve"][:3], run["curve"][3] | {"flips": 0, "refreshes": 0}]}
    assert stability.exchanged_an_epoch(still, slice(2, 4)) == pytest.approx(at_a_choice)


def test_a_rate_that_never_falls():
    """The whole run is before the first fall and after the last, with no phase between."""
    found = stability.stability_figures(a_run(milestones=[], epochs=6))
    assert found["jitter_high"] == found["jitter_low"] == pytest.approx(51.5 / 5) and math.isnan(found["jitter_mid"])


def test_a_real_record(tiny_config, tiny_dataset, tmp_path):
    """Every figure that two epochs can have is a number, and so is every point of its course."""
    runs = [Run(fit(tiny_config(seed=s), dataset=tiny_dataset, runs_dir=tmp_path, progress=False)) for s in (0, 1)]
    found = stability.stability_figures(runs[0])
    assert {k for k, v in found.items() if math.isnan(v)} <= {"jitter_high", "jitter_mid", "jitter_low", "flips"}
    assert found["overlap_mid"] == 1.0 and found["ever_kept"] >= 1.0
    curves = stability.dynamics_table(runs)
    assert len(curves) == 4 and curves["overlap"].notna().all() and curves["exchanged"].max() <= 100


def test_beside_says_what_is_missing():
    """Means are over equal seeds, whose number stands beside each figure; a variant without a seed has no column."""
    run = a_run(epochs=6)
    table = stability.stability_by_variant([run], ["ste", "dcil"]).set_index("figure")
    row = table.loc[stability.FIGURES["jitter_high"]]
    assert dict(row) == {"ste": "15.00", "n": "1"}, "what STE measured stays on a page that has no run of DCIL"
    assert stability.stability_by_variant([run], ["dcil"]).empty
    alike = stability.stability_by_variant([run, run | {"config": run["config"] | {"method": "dcil"}}], ["ste", "dcil"])
    assert set(alike["n"]) <= {"0", "1"} and "1" in set(alike["n"])  # as many of each: one number

    def of(*seeds_by_method):
        more = [run | {"config": run["config"] | {"method": m, "seed": s}} for m, s in seeds_by_method]
        table = stability.stability_by_variant([run, *more], ["ste", "dcil", "gmp"]).set_index("figure")
        return dict(table.loc[stability.FIGURES["jitter_high"]])

    at_equal_seeds = of(("dcil", 0), ("dcil", 1), ("gmp", 0))
    assert at_equal_seeds == {"ste": "15.00", "dcil": "15.00", "gmp": "15.00", "n": "1"}
    assert of(("dcil", 1), ("dcil", 2), ("gmp", 0))["n"] == "1, 2 and 1"  # no seed in common: each its own
    assert stability.stability_table([run | {"status": "failed"}]).empty


def test_exchanges_are_compared_at_equal_seeds(monkeypatch):
    """Half of STE's at one seed and a quarter at another count; seeds that only one has do not."""
    flips = {("ste", 0): 2.0, ("ste", 1): 4.0, ("ste", 2): 99.0, ("gmp", 0): 1.0, ("gmp", 1): 1.0, ("gmp", 3): 99.0}
    rows = [{"run": f"{v}-{s}", "variant": v, "seed": s, "flips": share} for (v, s), share in flips.items()]
    monkeypatch.setattr(stability, "stability_table", lambda runs: pd.DataFrame(rows))
    assert dict(stability.fewer_exchanges([], "gmp")) == {0: 0.5, 1: 0.75}
    assert stability.fewer_exchanges([], "dcil").empty
