"""Methods at other learning rates stand beside the usual one, at equal seeds."""

from dcil.lab.runs.frames import runs_table
from dcil.lab.tables.learning_rates import learning_rates_table
from tests.lab.fakes import fake_run


def test_rates_are_compared_at_equal_seeds():
    """The usual rate's other seeds do not count; who ran at the usual rate only, or at no common seed, has no row."""
    runs = [fake_run("ste", seed, 80.0 + seed) for seed in range(3)]
    runs += [fake_run("ste", 1, 84.0, lr=0.2), fake_run("dcil", 0, 90.0)]
    runs += [fake_run("gmp", 0, 70.0), fake_run("gmp", 1, 71.0, lr=0.05)]
    (row,) = learning_rates_table(runs_table(runs), ["dcil", "ste", "gmp"], [0.05, 0.2], usual=0.1).to_dict("records")
    assert row == {"method": "STE", "n": 1, "lr 0.05, %": "", "lr 0.1, %": "81.00", "lr 0.2, %": "84.00"}
    assert learning_rates_table(runs_table(runs), ["dcil"], [0.05, 0.2], usual=0.1).empty
