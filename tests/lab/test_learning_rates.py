"""Methods at other learning rates stand beside the usual one, at equal seeds."""

from dcil.lab.runs.frames import runs_table
from dcil.lab.tables.learning_rates import best_rates_in_words, learning_rates_table, places_in_words
from tests.lab.fakes import fake_run


def test_rates_are_compared_at_equal_seeds():
    """The usual rate's other seeds do not count; who ran at the usual rate only, or at no common seed, has no row."""
    runs = [fake_run("ste", seed, 80.0 + seed) for seed in range(3)]
    runs += [fake_run("ste", 1, 84.0, lr=0.2), fake_run("dcil", 0, 90.0)]
    runs += [fake_run("gmp", 0, 70.0), fake_run("gmp", 1, 71.0, lr=0.05)]
    (row,) = learning_rates_table(runs_table(runs), ["dcil", "ste", "gmp"], [0.05, 0.2], usual=0.1).to_dict("records")
    assert row == {"method": "STE", "n": 1, "lr 0.05, %": "", "lr 0.1, %": "81.00", "lr 0.2, %": "84.00"}
    assert learning_rates_table(runs_table(runs), ["dcil"], [0.05, 0.2], usual=0.1).empty


def test_each_method_at_its_best_rate():
    """What the best rate gains and where that leaves the baseline; a method without all the rates is left out."""
    tops = {"dcil": (84.0, 85.0, 84.5), "ste": (83.0, 83.5, 84.75), "gmp": (70.0, 71.0)}
    runs = [
        fake_run(method, 0, top, lr=lr)
        for method, at in tops.items()
        for lr, top in zip((0.05, 0.1, 0.2), at, strict=False)
    ]
    runs += [fake_run("ste", 1, 99.0, lr=0.2)]
    said = best_rates_in_words(runs_table(runs), "dcil", ["ste", "gmp"], [0.05, 0.2], usual=0.1)
    assert said.endswith(
        "gains, in points: DCIL 0.00 and STE 1.25. With each at its best, DCIL minus STE +0.25 points, n = 1."
    )
    assert best_rates_in_words(runs_table(runs), "gmp", ["ste"], [0.05, 0.2], usual=0.1) == ""
    assert best_rates_in_words(runs_table(runs), "dcil", ["gmp"], [0.05, 0.2], usual=0.1) == ""


def test_a_seed_is_placed_among_the_others():
    """One seed at other rates may be an unlucky one; a method with no other seed has no place."""
    runs = [fake_run("ste", seed, 80.0 + seed) for seed in (0, 1, 2, 3)] + [fake_run("ste", 1, 84.0, lr=0.2)]
    runs += [fake_run("gmp", 0, 70.0), fake_run("gmp", 0, 71.0, lr=0.2)]
    said = places_in_words(runs_table(runs), ["ste", "gmp", "dcil"], [0.05, 0.2], usual=0.1)
    assert said == "At the usual rate, this seed ends above so many of the other seeds: STE 1 of 3."
    assert places_in_words(runs_table(runs), ["gmp"], [0.05, 0.2], usual=0.1) == ""
