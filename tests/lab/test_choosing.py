"""When to use DCIL and what to expect of it: sentences that follow from the records, whatever they say."""

import pandas as pd
import pytest

from dcil import records
from dcil.lab import checkout
from dcil.lab.evidence import claims
from dcil.lab.runs import compared
from dcil.lab.tables import choosing, small_devices
from tests.lab.fakes import fake_claim, fake_run, fake_runs

LOW, HIGH, MIXED = (80.0, 80.2, 80.1), (81.0, 81.1, 81.2), (80.0, 83.0, 79.0)
NO_DEVICES = pd.DataFrame(columns=["what", "variant", "threads", "batch", "speedup"])


def found(claim, **lasts):
    """The findings on one claim that DCIL ends better than STE."""
    return claims.findings_by_id([fake_claim(id=claim)], fake_runs(**lasts))


def test_who_is_behind_is_no_reason():
    """Ahead at equal epochs is a reason for DCIL; behind, or within noise, is one against it."""
    ahead = found("better-than-ste-90", ste=LOW, dcil=HIGH)
    assert "DCIL minus STE is +1.00 points" in choosing.reasons_for(ahead)
    assert choosing.reasons_against(ahead, NO_DEVICES) == ""
    for dcil, verdict in ((LOW, "does not hold at this scale"), (MIXED, "within noise")):
        behind = found("better-than-ste-90", ste=HIGH, dcil=dcil)
        assert "STE" not in choosing.reasons_for(behind)
        assert "you can take STE instead" in choosing.reasons_against(behind, NO_DEVICES)
        assert f"(advantage: {verdict})" in choosing.reasons_against(behind, NO_DEVICES)


def test_equal_compute_counts_where_it_is_decided():
    """Behind at equal compute is a reason against DCIL; within noise is none."""
    behind = choosing.reasons_against(found("equal-compute-ste", ste=HIGH, dcil=LOW), NO_DEVICES)
    assert "Given the same computation, over half the epochs, DCIL minus STE is -1.00 points." in behind
    longer = choosing.reasons_against(found("larger-budget-ste", ste=HIGH, dcil=LOW), NO_DEVICES)
    assert "Given the same computation, against twice the epochs, DCIL minus STE is -1.00" in longer
    assert choosing.reasons_against(found("equal-compute-ste", ste=HIGH, dcil=MIXED), NO_DEVICES) == ""


def test_effects_stand_by_budget():
    """A row for each rival and budget with a verdict, DCIL minus the rival; one seed has no verdict and no row."""
    both = found("better-than-ste-90", ste=LOW, dcil=HIGH) | found("equal-compute-ste", ste=HIGH, dcil=LOW)
    table = choosing.gains_by_budget(both | found("better-than-gmp", ste=LOW[:1], dcil=HIGH[:1]))
    assert table[["variant", "budget", "n"]].values.tolist() == [
        ["ste", "as many epochs", 3],
        ["ste", "the same computation, over half the epochs", 3],
    ]
    assert [round(effect, 6) for effect in table["DCIL minus it, points"]] == [1.0, -1.0]
    assert (table["low"] <= table["DCIL minus it, points"]).all() and len(choosing.gains_by_budget({})) == 0


def test_without_records_there_are_no_numbers():
    """Nothing is claimed of what has not run."""
    assert "points" not in choosing.reasons_for({}) and choosing.reasons_against({}, NO_DEVICES) == ""
    assert choosing.expected_table([], 16).empty


def test_speeds_are_those_of_masked_networks():
    """The slowest and the fastest of them are named, for one image on one thread."""
    rows = [("masked", 0.9, 1), ("masked", 1.1, 1), ("shrunk", 3.0, 1), ("masked", 9.0, 2)]
    devices = pd.DataFrame(
        [
            {"what": "latency, s", "variant": variant, "threads": threads, "batch": 1, "speedup": speed}
            for variant, speed, threads in rows
        ]
    )
    assert "run 0.90 to 1.1 times as fast" in choosing.reasons_against({}, devices)


def test_expected_accuracies():
    """Dense first, then by sparsity and accuracy; cost in dense runs; a method with too few seeds is left out."""
    made = [fake_run("dense", seed, 90.0 + seed, sparsity=0.0, epochs=4) for seed in range(3)]
    made += [fake_run(name, seed, 85.0, epochs=4) for name in ("ste", "st3_stepwise") for seed in range(3)]
    made += [fake_run("dcil", seed, 86.0, sparsity=s, epochs=4) for s in (0.9, 0.95) for seed in range(3)]
    made += [fake_run("dcil", seed, 80.0, epochs=2) for seed in range(3)]
    made += [fake_run("ste", seed, 85.5, epochs=8) for seed in range(3)] + [
        fake_run("rigl_returning", 0, 99.0, epochs=4)
    ]
    macs = {"dcil": 60}
    made = [
        run
        | {"data": run["data"] | {"train_size": 100}}
        | {"cost": run["cost"] | {"train_macs": macs.get(run.config.method, 30)}}
        for run in made
    ]
    table = choosing.expected_table(made, 4)
    assert sorted(table[["method", "sparsity, %", "cost, dense runs"]].itertuples(index=False, name=None)) == [
        ("DCIL", "90", "2"),
        ("DCIL", "95", "2"),
        ("DCIL, 2 epochs", "90", "1"),
        ("ST-3", "90", "1"),
        ("STE", "90", "1"),
        ("STE, 8 epochs", "90", "2"),
        ("dense", "0", "1"),
    ]
    assert set(table["n"]) == {3}
    assert table["method"].tolist()[:2] == ["dense", "DCIL"] and table["sparsity, %"].tolist()[-1] == "95"
    assert table["top-1, %"].tolist()[:2] == ["91.00\u00a0±\u00a01.00", "86.00\u00a0±\u00a00.00"]


@pytest.mark.parametrize("claim", [claim for ids in choosing.BUDGETS.values() for claim in ids.values()])
def test_every_claim_asked_for_is_one_of_the_book(claim):
    """A claim that was renamed would silently leave its sentence."""
    known = claims.read_claims(checkout.root() / "book" / "claims.yml")
    assert claim in {each.id for each in known}


def test_the_book_gives_both_reasons():
    """The book's records say when to use DCIL, when not, and what it costs."""
    root = checkout.root()
    everything = records.load_all(root / "records")
    known = claims.findings_by_id(claims.read_claims(root / "book" / "claims.yml"), everything)
    against = choosing.reasons_against(known, small_devices.read_device_results(root / "benchmarks" / "device"))
    assert "DCIL minus" in choosing.reasons_for(known) and "limited" in against and "Zeros rarely save time" in against
    table = choosing.expected_table(compared.load_compared("quick", dataset="cifar10", model="resnet20"), 16)
    assert set(table.loc[table["method"] == "DCIL", "cost, dense runs"]) == {"2"}
