"""A row for everything that a grid asks for, "not run" where there is no record."""

from dcil import RunConfig
from dcil.lab.sweep.grid import Planned
from dcil.lab.tables import grids
from tests.lab.fakes import fake_run


def planned(**changes):
    config = RunConfig(dataset="cifar10", model="resnet32", **changes).resolve()
    return Planned(config, 1, 0, ("x",))


def test_rows_follow_the_grid():
    """Two seeds of one setting are one row; another sparsity and method are others; the authors' logs stand beside."""
    runs = [planned(seed=0), planned(seed=1), planned(sparsity=0.95), planned(method="dense")]
    done = fake_run("dcil", 0, 92.0, passes=("sparse", "dense")) | {"run_id": runs[0].run_id}
    table = grids.grid_table(runs, [done])
    assert table["n"].tolist() == ["1 of 2", "0 of 1", "0 of 1"]
    assert table["last epoch, %"].tolist() == ["92.00", "not run", "not run"]
    assert table["second pass, %"].tolist() == ["92.00", "", ""]
    assert table["authors' logs, %"].tolist() == ["92.74 last, 93.12 best", "92.11 last, 92.37 best", ""]
    assert grids.coverage_in_words(runs, [done]) == "1 of 4 runs have a record"


def test_what_has_begun_in_words():
    """Settings with a run, n of how many seeds; the rest is a number, not a wall."""
    runs = [planned(seed=0), planned(seed=1), planned(sparsity=0.4, scope="filter"), planned(method="dense")]
    done = [
        fake_run("dcil", 0, 92.0, passes=("sparse", "dense")) | {"run_id": runs[0].run_id},
        fake_run("dcil", 0, 91.0, passes=("sparse", "dense")) | {"run_id": runs[2].run_id},
    ]
    assert grids.begun_in_words(runs, done) == (
        "dcil with 90 % pruned, resnet32 on cifar10, 1 of 2 seeds: 92.00 % at the last epoch; "
        "dcil, scope filter with 40 % of filters pruned, resnet32 on cifar10, 1 of 1 seeds: 91.00 % at the last epoch. "
        "1 more settings are planned."
    )
    assert grids.begun_in_words(runs[3:], done) == "nothing has run. 1 more settings are planned."
    assert grids.begun_in_words(runs[:1], done).endswith("1 of 1 seeds: 92.00 % at the last epoch.")


def test_failed_runs_are_no_results():
    """A failed record leaves its row at "not run"."""
    run = planned()
    failed = fake_run("dcil", 0, 92.0) | {"run_id": run.run_id, "status": "failed"}
    assert grids.grid_table([run], [failed])["last epoch, %"].item() == "not run"
