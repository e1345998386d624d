"""The abstract follows from the records."""

import re

import pytest

from dcil import records
from dcil.lab import checkout
from dcil.lab.book.abstract import abstract
from dcil.lab.evidence import claims
from tests.lab.fakes import CLAIM, changed, fake_claim, fake_runs

KNOWN = claims.read_claims(checkout.root() / "book" / "claims.yml")
FOUND = records.load_all(checkout.root() / "records")


@pytest.fixture(scope="module")
def said():
    """The book's abstract."""
    return abstract(KNOWN, FOUND)


def test_the_abstract_is_short_and_has_the_findings(said):
    """At most 150 words, without bullets, percent signs and "n = 3"; its effects are those of its claims."""
    assert 60 < len(re.findall(r"\S*\w\S*", re.sub(r"n = \d+( or \d+)?", "", said))) <= 150
    found = claims.findings_by_id(KNOWN, FOUND)
    for name in (
        "better-than-ste-90",
        "better-than-ste-95",
        "equal-compute-st3-stepwise",
        "mutual-loss",
        "ste-gradient-helps",
        "better-than-st3-stepwise",
    ):
        assert f"{found[name]['quick'].mean:+.2f}" in said
    assert "DCIL ends above STE" in said and "ends below ST-3" in said and "% fewer weights than STE" in said


def test_the_abstract_says_how_far_its_numbers_carry(said):
    """It says the seeds, the correction and what survives it, and what half the epochs cost by themselves."""
    found = claims.findings_by_id(KNOWN, FOUND)
    for name in ("better-than-ste-90", "equal-compute-ste", "ste-gradient-helps", "mutual-loss"):
        assert f"(n = {len(found[name]['quick'].effects)}" in said
    assert "16 epochs (tier *quick*)" in said and "gains over STE" in said
    assert re.search(r"alf the epochs (alone move DCIL by |\((DCIL alone )?)-\d\.\d\d", said)
    noise = abstract([fake_claim(id="better-than-ste-90")], fake_runs(ste=(80, 82, 81), dcil=(81, 83.1, 85.5)))
    assert "at 90 % sparsity (within noise) (n = 3)." in noise
    sure = abstract([fake_claim(id="better-than-ste-90")], fake_runs(ste=(80, 80.2, 80.1), dcil=(81, 81.1, 81.2)))
    assert "1 of 1 that hold stays beyond chance](verdicts), among them the gain over STE at 90 %." in sure


def test_the_two_gains_are_told_apart():
    """Headline and correction name the sparsity at which the gain is shown, not one where only the mean is ahead."""
    evidence = {share: {"quick": CLAIM["evidence"]["quick"] | {"sparsity": share / 100}} for share in (90, 95)}
    known = [fake_claim(id=f"better-than-ste-{share}", evidence=evidence[share]) for share in (90, 95)]
    unsure = fake_runs(ste=(80, 82, 81), dcil=(81, 83.1, 85.5))
    sure = fake_runs(ste=(80, 80.2, 80.1), dcil=(81, 81.1, 81.2))
    both = [*unsure, *(changed(run, "config", sparsity=0.95) for run in sure)]
    said = abstract(known, both)
    assert "DCIL ends above STE at 95 %**: +2.20 points at 90 % sparsity (within" in said
    assert "among them the gain over STE at 95 %, not at 90 %." in said
    assert "DCIL is not shown to end above STE**: +2.20" in abstract(known, unsure)


def test_an_excluded_advantage_is_none():
    """Beside a difference near zero, "does not hold" would leave open what does not."""
    rivals = {"better-than-ste-90": "ste", "better-than-st3-stepwise": "st3_stepwise"}
    known = [fake_claim(id=name, rule=CLAIM["rule"] | {"b": rival}) for name, rival in rivals.items()]
    runs = fake_runs(ste=(79, 79.1, 79.2), st3_stepwise=(80.1, 80.05, 80.2), dcil=(80.0, 80.1, 80.3))
    assert "against ST-3 +0.02 at 90 % (n = 3, no advantage of 0.3)." in abstract(known, runs)


def test_seeds_are_counted_as_they_are():
    """A claim of eight pairs and one of three each say their number."""
    gmp = fake_claim(id="mutual-loss", rule=CLAIM["rule"] | {"b": "gmp"})
    lasts = {"ste": [80.0, 80.2] * 4, "dcil": [81.0 + s / 10 for s in range(8)], "gmp": [80.0, 80.1, 80.3]}
    said = abstract([fake_claim(id="better-than-ste-90"), gmp], fake_runs(**lasts))
    assert "at 90 % sparsity (n = 8)" in said and "teaching +0.97 (n = 3, holds)" in said


def test_a_gradient_that_brings_nothing_is_said_to():
    """It is said only where an advantage as large as the margin is ruled out."""
    helps = fake_claim(id="ste-gradient-helps", rule=CLAIM["rule"] | {"a": "ste", "b": "kept_only"})
    for lasts, words in (((80.1, 80.2, 80.0), "shows no gain"), ((78, 80, 82), "was measured")):
        said = abstract([helps], fake_runs(ste=(80, 80.2, 80.1), kept_only=lasts))
        assert f"STE's gradient for pruned weights {words} over none**" in said


def test_the_abstract_follows_the_records():
    """Results the other way round reverse it; without records it claims nothing."""
    ste = fake_claim(id="better-than-ste-90")
    good, bad = (80.0, 80.2, 80.1), (81.0, 81.1, 81.2)
    assert "DCIL ends above STE**: +1.00 points at 90 %" in abstract([ste], fake_runs(ste=good, dcil=bad))
    assert "DCIL ends below STE**: -1.00" in abstract([ste], fake_runs(ste=bad, dcil=good))
    nothing = abstract(KNOWN, [])
    assert "points" not in nothing and "nothing is decided yet" in nothing


def test_equal_compute_says_on_which_side_dcil_ends():
    """The interval decides: below, above, not ahead, or within noise. A claim that does not hold is not yet a loss."""
    rules = {b: CLAIM["rule"] | {"b": b, "a_epochs": 1} for b in ("ste", "gmp", "st3", "set")}
    known = [fake_claim(id=f"equal-compute-{b}", rule=rule) for b, rule in rules.items()]
    lasts = {"dcil": (81, 81.1, 81.2), "ste": (83, 83.2, 83.1), "gmp": (80.94, 81.05, 81.13), "st3": (80, 83, 79)}
    said = abstract(known, fake_runs(**lasts, set=(81.1, 81.1, 81.2)))
    assert (
        "it ends below STE (-2.00) and above gradual magnitude by epoch (+0.06)**; against ST-3 every 16 steps within "
        "noise and against SET not ahead (n = 3)." in said
    )
    ahead = abstract(known[:1], fake_runs(ste=(80, 80.2, 80.1), dcil=(81, 81.1, 81.2)))
    assert "**At equal compute, over half the epochs, it ends above STE (+1.00)** (n = 3)." in ahead
    assert "At equal compute" not in abstract(known[:1], fake_runs(ste=(80, 80.2), dcil=(81, 81.1)))
    alike = abstract(known[:1], fake_runs(ste=(80, 83, 79), dcil=(81, 81.1, 81.2)))
    assert "over half the epochs, no interval excludes zero**; against STE within noise (n = 3)." in alike


def test_the_fairest_equal_compute_comes_first():
    """Rivals over twice the epochs are named once all of them are decided; of the other ways stands the range."""
    ways = {"equal-compute": ("ste", "gmp"), "larger-budget": ("gmp",), "cheaper-steps": ("ste",)}
    lasts = fake_runs(dcil=(81, 81.1, 81.2), ste=(83, 83.2, 83.1), gmp=(80, 80.2, 80.1))
    known = [fake_claim(id=f"{way}-{b}", rule=CLAIM["rule"] | {"b": b}) for way, rivals in ways.items() for b in rivals]
    assert (
        "**At equal compute, against twice the epochs, it ends above gradual magnitude by epoch "
        "(+1.00)** (n = 3). The differences are -2.00 to +1.00 over half the epochs and -2.00 with fewer dense passes."
        in abstract(known, lasts)
    )
    undecided = fake_claim(id="larger-budget-st3", rule=CLAIM["rule"] | {"b": "st3"})
    assert "**At equal compute, over half the epochs, it ends below STE (-2.00) and above" in abstract(
        [*known, undecided], lasts
    )
