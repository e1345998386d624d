"""Equal compute: MACs by hand, and only runs of the same budget side by side."""

import pytest

from dcil import RunConfig, cost
from dcil.errors import DcilError
from dcil.lab.tables import equal_compute
from tests.lab.fakes import changed, fake_run


def run(method, seed, last, train_macs=60, epochs=1, **changes):
    return changed(fake_run(method, seed, last, epochs=epochs, **changes), "cost", train_macs=train_macs)


def test_macs_by_hand():
    """Two passes take 60 MACs an image; with the dense one at every fourth step, it is 1.25 passes of 30."""
    assert run("dcil", 0, 1.0).epoch_macs == 6000
    assert run("dcil", 0, 1.0, dense_every=4).epoch_macs == pytest.approx(100 * 30 * 1.25)
    assert run("ste", 0, 1.0, train_macs=30, epochs=4).macs == 12_000
    assert cost.passes_a_step(RunConfig(method="ste")) == 1 and cost.passes_a_step(RunConfig(method="dcil")) == 2


def test_twice_the_epochs():
    """Each method over twice the epochs minus itself, at equal seeds; one length alone says nothing."""
    lasts = {("ste", 4, 0): 80.0, ("ste", 8, 0): 82.0, ("ste", 4, 1): 70.0, ("gmp", 4, 0): 80.0}
    runs = [run(name, seed, last, epochs=epochs) for (name, epochs, seed), last in lasts.items()]
    said = equal_compute.twice_the_epochs_in_words(runs, ["ste", "gmp"], 4)
    assert said == "Training for 8 epochs in place of 4 moves STE by +2.00 (n = 1) points."
    assert equal_compute.twice_the_epochs_in_words(runs, ["gmp"], 4) == ""


def test_only_equal_budgets_stand_side_by_side():
    """DCIL at 2 epochs costs what STE costs at 4; STE at 2 epochs is another budget."""
    runs = [run("dcil", s, 81.0 + s, epochs=2) for s in range(2)]
    runs += [run("ste", s, 80.0, train_macs=30, epochs=4) for s in range(2)]
    runs += [run("ste", 5, 10.0, train_macs=30, epochs=2)]
    wanted = [equal_compute.run_label(runs[2]), equal_compute.run_label(runs[0]), "gmp, 4 epochs"]
    table = equal_compute.budget_table(runs, 12_000, wanted, wanted[1], 0.3).set_index("method")
    assert table.loc["STE, 4 epochs", "last epoch, %"] == "80.00 ± 0.00" and table["n"].tolist() == [2, 2]
    assert table.loc["STE, 4 epochs", "DCIL, 2 epochs minus it, points"].startswith("+1.50 (")
    assert equal_compute.labels_without_run(runs, 12_000, wanted) == ["gradual magnitude by epoch, 4 epochs"]
    more = [*runs, *(run("ste", s, 99.0, train_macs=30, epochs=4) for s in range(2, 8))]
    assert equal_compute.budget_table(more, 12_000, wanted, wanted[1], 0.3).equals(table.reset_index())


def test_two_runs_of_one_seed_are_refused():
    """Two records of one seed, such as one in bf16 and one in float32, do not make one number."""
    runs = [run("ste", 0, 80.0, precision=precision) for precision in ("bf16", "float32")]
    with pytest.raises(DcilError, match=r"several runs of one seed for 'ste.*seed 0.*precision"):
        equal_compute.lasts_by_label(runs)


def test_who_is_behind():
    """Here RigL is at equal epochs, DCIL at equal compute; runs that are ahead or had another budget are left out."""
    runs = [run("ste", s, 80.0 + s, train_macs=30, epochs=4) for s in range(2)]
    runs += [run("rigl", 0, 79.5, train_macs=30, epochs=4), run("dcil", 0, 82.0, epochs=4)]
    runs += [run("dcil", s, 79.0, epochs=2) for s in range(2)] + [run("gmp", 0, 1.0, train_macs=30, epochs=2)]
    runs = [each | {"run_id": str(number)} for number, each in enumerate(runs)]
    rows, told = equal_compute.negative_results(runs, ["ste", "st3"], 4)
    assert rows[["run", "at equal", "n"]].to_numpy().tolist() == [
        ["RigL without return, 4 epochs", "epochs", 1],
        ["DCIL, 2 epochs", "compute", 2],
    ]
    points = rows["run minus it, points"].tolist()
    assert points[0] == "-0.50" and points[1].startswith("-1.50 (") and set(rows["ends behind"]) == {"STE, 4 epochs"}
    assert [r.run_id for r in told] == ["0", "1", "2", "4", "5"]
    assert not len(equal_compute.negative_results([], ["ste"], 4)[0])


def test_what_half_the_epochs_cost_by_themselves():
    """The cost is over the seeds that have both lengths; without any, nothing is said."""
    runs = [run("dcil", s, 81.0, epochs=2) for s in range(2)] + [run("dcil", s, 84.0, epochs=4) for s in range(3)]
    assert equal_compute.half_epochs_in_words(runs, "dcil", 4) == (
        "Training for 2 epochs in place of 4 moves DCIL by -3.00 (-3.00 to -3.00) points, whatever it is compared "
        "with, n = 2."
    )
    assert (
        equal_compute.half_epochs_in_words(runs[2:], "dcil", 4)
        == equal_compute.half_epochs_in_words([], "dcil", 4)
        == ""
    )


def test_curves_count_what_was_spent():
    """Each epoch has a row, with the MACs so far."""
    rows = equal_compute.spent_table([run("ste", 0, 80.0, train_macs=30)])
    assert rows["macs"].tolist() == [3000] and rows["test"].tolist() == [80.0]


def test_where_each_schedule_ended_and_what_it_cost():
    """Cost is in dense runs, of which DCIL at half the epochs costs one; cheapest first, without failed runs."""
    runs = [run("dense", 0, 90.0, train_macs=30, epochs=4, sparsity=0.0), run("dcil", 0, 80.0, epochs=2)]
    runs += [run("dcil", s, 85.0 + s, epochs=4) for s in range(2)]
    runs += [run("dcil", 2, 1.0, epochs=4) | {"status": "failed"}]
    table = equal_compute.schedules_table(runs)
    assert table["cost"].tolist() == [1, 1, 2] and table["variant"].tolist() == ["dcil", "dense", "dcil"]
    last = table.iloc[-1]
    assert (last["n"], last["mean"], last["lasts"]) == (2, 85.5, [85.0, 86.0]) and last["low"] < 85 < 86 < last["high"]
    assert equal_compute.schedules_table(runs[1:])["cost"].isna().all() and equal_compute.schedules_table([]).empty
