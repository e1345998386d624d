"""Paired differences: the textbook's intervals, equivalence, and how many seeds it takes."""

import math

import pytest

from dcil.errors import DcilError
from dcil.lab.page import provenance
from dcil.lab.runs import frames, paired
from tests.lab.fakes import fake_run, fake_runs


def test_interval():
    """It is the textbook's, mean ± t·s/√n with t(2, 0.975) = 4.3027 (Student's table); one pair has none."""
    mean, low, high = paired.t_interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and (low, high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    assert paired.t_interval([0.5])[0] == 0.5 and math.isnan(paired.t_interval([0.5])[1])
    assert all(map(math.isnan, paired.t_interval([])))


def test_equivalence_is_two_one_sided_tests():
    """At n = 3 the 90 % interval is mean ± 2.9200·s/√3: its ends decide, and noise proves nothing equal."""
    near = [0.0, 0.1, -0.1]  # s = 0.1, so ±0.1686
    assert paired.equivalent(near, 0.17) is True and paired.equivalent(near, 0.168) is False
    assert paired.equivalent([-3.0, 0.0, 3.0], 0.5) is False  # mean zero, and nothing known
    assert paired.equivalent([0.0], 1.0) is None


def test_p_values_agree_with_intervals():
    """At n = 3, t = 4.3027 has p = 0.05 two-sided, and t = 2.9200 one-sided (Student's table)."""
    assert paired.p_difference([x + 4.3027 / 3**0.5 for x in (-1, 0, 1)]) == pytest.approx(0.05, abs=1e-4)
    assert paired.p_equivalence([-1, 0, 1], 2.92 / 3**0.5) == pytest.approx(0.05, abs=1e-4)
    for values in ([0.0, 0.1, 0.2], [0.0, 0.1, 0.3], [1.0, 1.1, 1.2], [-3.0, 0.0, 3.0]):
        assert paired.equivalent(values, 0.3) == (paired.p_equivalence(values, 0.3) < 0.05)
        assert (math.prod(paired.t_interval(values)[1:]) > 0) == (paired.p_difference(values) < 0.05)
    assert math.isnan(paired.p_difference([1.0])) and math.isnan(paired.p_equivalence([1.0], 0.3))


def test_welch_by_hand():
    """Variances 1 and 4 at n = 3: t with (5/3)² / ((1/3)²/2 + (4/3)²/2) = 2.9412 degrees, so 3.2188 standard errors."""
    mean, low, high = paired.welch_interval([4.0, 5.0, 6.0], [0.0, 2.0, 4.0])
    half = 3.2188 * (5 / 3) ** 0.5
    assert mean == 3 and (low, high) == pytest.approx((3 - half, 3 + half), abs=1e-3)
    assert paired.welch_interval([4.0, 5.0], [1.0])[0] == 3.5 and math.isnan(
        paired.welch_interval([4.0, 5.0], [1.0])[1]
    )


def test_seeds_needed_by_the_table():
    """A standardised difference of 0.5 needs 34 pairs, of 1.0 needs 10 (G*Power, two-sided, α 0.05, power 0.8)."""
    spread = [-(0.5**0.5), 0.5**0.5]  # sample standard deviation 1
    assert [paired.seeds_needed_in_words(spread, margin) for margin in (0.5, 1.0)] == ["34", "10"]
    assert [paired.seeds_needed_in_words(v, 0.5) for v in ([1.0], [-90.0, 90.0])] == ["unknown", "over 1,000"]


def test_differences_pair_seeds_and_sparsities():
    """Only seeds that both have; a dense run stands beside any sparsity; two runs of one seed are refused."""
    table = frames.runs_table(
        [
            fake_run("ste", 0, 80.0),
            fake_run("dcil", 0, 81.0),
            fake_run("dcil", 1, 82.0),
            fake_run("dense", 0, 85.0, passes=("dense",), sparsity=0.0),
        ]
    )
    assert paired.differences(table, "dcil", "ste").tolist() == [1.0]
    assert paired.differences(table, "dcil", "dense").tolist() == [-4.0]
    assert paired.differences(table, "dcil", "rigl").empty
    with pytest.raises(DcilError, match=r"several runs of one seed for 'ste': ste-0-aaaa; .*precision"):
        paired.differences(frames.runs_table([fake_run("ste", 0, 1.0)] * 2), "ste", "ste")


def test_what_pairs_show():
    """Better and worse need an interval off zero, equivalence one inside the margin; the rest is noise."""
    words = {
        (1.0, 1.1, 0.9): "higher",
        (-1.0, -1.1, -0.9): "lower",
        (0.0, 0.1, -0.1): "equivalent within ±0.3",
        (-3.0, 3.0, 1.0): "within noise",
        (-0.6, 0.0, -0.1): "within noise",
        (-0.5, -0.2, -0.1): "within noise (not 0.3 higher)",
        (1.0, 1.1): "too few seeds (2 of 3)",
        (): "no seed in common",
    }
    for gaps, said in words.items():
        assert paired.conclusion(gaps, 0.3) == said


def test_compared_table():
    """Each variant that ran has a row, the baseline minus it with its interval; the rest is listed apart."""
    runs = fake_runs(ste=(80, 80.5, 81), dcil=(81, 81.6, 81.9))
    table, wanted = frames.runs_table(runs), ["dcil", "ste", "rigl"]
    found = paired.paired_table(table, "dcil", wanted, 0.3).set_index("method")
    assert list(found.index) == ["DCIL", "STE"] and found["n"].tolist() == [3, 3]
    assert found.loc["STE", "DCIL minus it, points"].startswith("+1.00 (") and found.loc["STE", "DCIL ends"] == "higher"
    assert found.loc["DCIL", "DCIL minus it, points"] == ""
    assert paired.variants_without_run(table, wanted) == ["RigL without return"]


def test_the_mean_beside_a_difference_is_of_its_seeds():
    """Seeds that the baseline lacks count in neither column, and n is the number of the rest."""
    table = frames.runs_table(fake_runs(ste=(80, 81, 82, 99, 99), dcil=(81, 82, 83)))
    row = paired.paired_table(table, "dcil", ["ste"], 0.3).iloc[0]
    assert row["n"] == 3 and row["last epoch, %"] == "81.00 ± 1.00"
    apart = frames.runs_table([fake_run("ste", 0, 80.0), fake_run("dcil", 1, 81.0)])
    row = paired.paired_table(apart, "dcil", ["ste"], 0.3).iloc[0]
    assert row["n"] == 0 and row["last epoch, %"] == "80.00"
    assert row["DCIL ends"] == "no seed in common" and row["DCIL minus it, points"] == ""
    shown = provenance.split_by_run(paired.paired_table(apart, "dcil", ["ste"], 0.3))
    assert len(shown[0]) == 1 and not shown[1], "a variant that ran is not planned"


def test_signed():
    """There is always a sign, and an interval if there is one."""
    assert paired.signed_interval(0.4, -0.1, 0.9) == "+0.40 (-0.10 to +0.90)"
    assert (
        paired.signed_interval(0.4, math.nan, math.nan) == "+0.40"
        and paired.signed_interval(*[math.nan] * 3) == "not run"
    )
