"""A tier's claims as a family: Holm by hand, and each p-value by the null of its claim's rule."""

import math

import pytest

from dcil.lab.evidence import claims, familywise
from dcil.lab.runs import paired
from tests.lab.fakes import CLAIM, SMALLER, fake_claim, fake_run, fake_runs

LASTS = {"ste": (80, 80.2, 80.1), "dcil": (81, 81.1, 81.2), "gmp": (80.5, 81.8, 80.4)}
EQUAL = {"id": "e", "rule": {"kind": "equal", "a": "gmp", "b": "ste", "margin": 0.3}}
BETTER = {"id": "g", "rule": CLAIM["rule"] | {"b": "gmp"}}


def test_holm_by_hand():
    """The smallest of four times four, the next times three; never below one before it, never above 1."""
    assert familywise.holm([0.01, 0.02, 0.03, 0.9]) == pytest.approx([0.04, 0.06, 0.06, 0.9])
    assert familywise.holm([0.9, 0.6, 0.01]) == pytest.approx([1.0, 1.0, 0.03]) and familywise.holm([]) == []


def test_a_family_is_the_claims_of_a_tier_that_have_a_verdict():
    """Claims without a verdict, or of another tier, do not enter the correction; unpaired intervals stand beside."""
    few = fake_claim(id="few", evidence={"quick": {"sparsity": 0.5}, "paper": {}})
    known, found = [fake_claim(), fake_claim(**EQUAL), fake_claim(**BETTER), few], fake_runs(**LASTS)
    rows = familywise.corrected_table(known, found).set_index(["id", "tier"])
    first, equal = rows.loc[("x", "quick")], rows.loc[("e", "quick")]
    assert first["verdict"] == "holds at this scale" and first["measured"] == claims.measured_in_words(
        fake_claim(), claims.findings(fake_claim(), found)[0]
    )
    assert first["p"] == pytest.approx(paired.p_difference([1.0, 0.9, 1.1]))
    assert first["p, Holm"] == pytest.approx(3 * first["p"])  # three have a verdict
    gaps = [a - b for a, b in zip(LASTS["gmp"], LASTS["ste"], strict=True)]
    assert equal["p"] == pytest.approx(paired.p_equivalence(gaps, 0.3)) and equal["p"] > 0.5
    assert first["unpaired"] == "+1.00 (+0.77 to +1.23) points"
    assert rows.loc[("few", "paper"), "unpaired"] == "" and math.isnan(rows.loc[("few", "paper"), "p, Holm"])
    assert familywise.with_p_in_words(rows).loc[("few", "paper"), "p"] == ""


def test_what_survives_is_said():
    """The counts are given alone and after correction, on either side; without a verdict it says so."""
    worse = {"id": "w", "rule": CLAIM["rule"] | {"a": "ste", "b": "dcil"}}
    known = [fake_claim(), fake_claim(**BETTER), fake_claim(**worse)]
    assert familywise.survivors_in_words(familywise.corrected_table(known, fake_runs(**LASTS))) == (
        "At tier **quick**, 1 of 3 claims hold and 1 do not, each taken alone. After the correction over all 3, p "
        "stays below 0.05 for 1 of the 1 that hold, and for 1 of the 1 that do not."
    )
    none = "None of these claims holds, or fails to hold, so far."
    noise = familywise.corrected_table([fake_claim()], fake_runs(ste=(80, 82, 81), dcil=(81, 83.1, 85.5)))
    assert familywise.survivors_in_words(noise) == none
    assert familywise.survivors_in_words(familywise.corrected_table([fake_claim()], [])) == none


def test_a_share_is_unpaired_as_a_ratio(monkeypatch):
    """A half at each seed, whatever its size, is a ratio of geometric means of a half."""
    sides = [familywise.pd.Series([1.0, 2.0, 4.0]), familywise.pd.Series([2.0, 4.0, 8.0])]
    monkeypatch.setattr(claims, "compared_values", lambda claim, found: sides)
    mean, low, high = familywise.unpaired_interval(fake_claim(rule=SMALLER), [])
    assert mean == pytest.approx(0.5) and low < 0 < 0.5 < high < 1


def test_the_authors_number_has_a_spread_too():
    """The rule takes their mean as given; unpaired, their own three runs widen the interval."""
    logs = {"dataset": "cifar10", "sparsity": 0.9, "scope": "global"}
    claim = fake_claim(rule={"kind": "matches", "a": "dcil", "margin": 0.5}, logs=logs)
    found = [fake_run("dcil", seed, last) for seed, last in enumerate((92.7, 92.75, 92.8))]
    alone, (_, low, high) = claims.findings(claim, found)[0], familywise.unpaired_interval(claim, found)
    assert low < alone.low < alone.high < high


def test_the_unpaired_interval_is_of_the_paired_seeds():
    """With eight seeds on one side and three on the other, both intervals are over the same runs."""
    found = fake_runs(ste=(80, 80.2, 80.1), dcil=(81, 81.1, 81.2, 99, 99, 99, 99, 99))
    row = familywise.corrected_table([fake_claim()], found).iloc[0]
    assert row["measured"].startswith("+1.00 (") and row["unpaired"] == "+1.00 (+0.77 to +1.23) points"


def test_a_claim_about_equal_runs_stays_in_the_family():
    """Runs that are the same to the last bit show no difference, and the correction counts them."""
    rows = familywise.corrected_table([fake_claim()], fake_runs(ste=(80, 81, 82), dcil=(80, 81, 82)))
    assert rows["verdict"].tolist() == ["does not hold at this scale"] and rows["p, Holm"].tolist() == [1.0]
