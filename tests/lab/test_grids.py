"""A row for everything that a grid asks for, "not run" where there is no record."""

from dcil import RunConfig
from dcil.lab.sweep.grid import Planned
from dcil.lab.tables import grids
from tests.lab.fakes import fake_run


def planned(**changes):
    config = RunConfig(dataset="cifar10", model="resnet32", **changes).resolve()
    return Planned(config, 1, 0, ("x",))


def test_rows_follow_the_grid():
    """Two seeds of one setting are one row, beside the authors' logs; what has no run is listed in words."""
    runs = [planned(seed=0), planned(seed=1), planned(sparsity=0.95), planned(method="dense")]
    done = fake_run("dcil", 0, 92.0, passes=("sparse", "dense")) | {"run_id": runs[0].run_id}
    (row,) = grids.grid_table(runs, [done]).to_dict("records")
    assert (row["method"], row["n"], row["last epoch, %"]) == ("DCIL", "1 of 2", "92.00")
    assert (row["second pass, %"], row["authors' logs, %"]) == ("92.00", "92.74 last, 93.12 best")
    assert grids.settings_without_run(runs, [done]) == [
        "DCIL, 95 %, ResNet-32, CIFAR-10, 300 epochs",
        "dense, ResNet-32, CIFAR-10, 300 epochs",
    ]
    assert grids.coverage_in_words(runs, [done]) == "1 of 4 runs has a record"
    assert grids.coverage_in_words(runs, []) == "0 of 4 runs have a record"


def test_the_sparsest_come_last():
    """They do so among runs of equal length, whose order stays that of the grid."""
    runs = [planned(sparsity=0.95, epochs=9), planned(sparsity=0.95), planned(epochs=9)]
    done = [fake_run("dcil", 0, 92.0) | {"run_id": run.run_id} for run in runs]
    table = grids.grid_table(runs, done)
    assert table["sparsity, %"].tolist() == ["90", "95", "95"] and table["epochs"].tolist() == [9, 9, 300]


def test_a_column_without_content_is_left_out():
    """Dense training has no sparsity, no second pass and no logs."""
    run = planned(method="dense")
    done = fake_run("dense", 0, 92.0) | {"run_id": run.run_id}
    assert list(grids.grid_table([run], [done])) == ["method", "last epoch, %", "n", "data set", "network", "epochs"]


def test_filters_are_said_once_and_in_order():
    """A setting is told in the words of a page, with what its share is of."""
    (waiting,) = grids.settings_without_run([planned(sparsity=0.4, scope="filter")], [])
    assert waiting == "DCIL, whole filters, 40 % of filters, ResNet-32, CIFAR-10, 300 epochs"


def test_failed_runs_are_no_results():
    """A setting whose only record failed still has no run."""
    run = planned()
    failed = fake_run("dcil", 0, 92.0) | {"run_id": run.run_id, "status": "failed"}
    assert grids.grid_table([run], [failed]).empty and len(grids.settings_without_run([run], [failed])) == 1
