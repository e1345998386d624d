"""Verdicts follow from records by rule: each kind on both sides of its margin, and nothing by hand."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from dcil import methods, records
from dcil.errors import DcilError
from dcil.lab.evidence import claims
from dcil.lab.runs import paired
from dcil.lab.tables import equal_compute
from tests.lab.fakes import CLAIM, SMALLER, changed, fake_claim, fake_run, fake_runs

HOLDS, FAILS = "holds at this scale", "does not hold at this scale"
VERDICTS = [*claims.HOLDS, *claims.FAILS, "within noise", "undecided", claims.NO_VERDICT]
BOOK = Path(__file__).parents[2] / "book"


def verdict(found, **changes):
    return claims.findings(fake_claim(**changes), found)[0].verdict


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("better", [0.5, 0.6, 0.55], HOLDS),
        ("better", [0.5, 2.0, -1.0], "within noise"),
        ("better", [0.2, 0.25, 0.35], "undecided"),  # ahead at every seed; by the margin or not is open
        ("better", [0.05, 0.06, 0.07], FAILS),  # ahead, but an advantage of 0.3 is ruled out
        ("better", [-0.5, -0.6, -0.55], FAILS),
        ("better", [5.0, 6.0], "not yet run"),
        ("smaller", [0.5, 0.6, 0.55], HOLDS),
        ("equal", [0.05, -0.05, 0.0], HOLDS),
        ("equal", [0.1, 0.0, 0.2], HOLDS),  # inside at 90 %, not at 95 %: two one-sided tests
        ("equal", [0.5, 2.0, -1.0], "undecided"),  # noise shows nothing to be equal
        ("equal", [-0.63, -0.67, -0.12], "undecided"),  # the mean is outside the margin, the interval reaches zero
        ("equal", [-0.2, -0.25, -0.35], "undecided"),  # lower at every seed; inside the margin or not is open
        ("equal", [0.9, 0.95, 1.0], FAILS),
        ("matches", [-0.9, -0.95, -1.0], FAILS),
        ("matches", [], "not yet run"),
    ],
)
def test_rules(kind, values, expected):
    """The table of the module, line by line, at a margin of 0.3."""
    assert claims.verdict_by_rule(kind, values, 0.3, "quick") == expected


def test_a_margin_that_is_just_reached():
    """Equal effects of exactly the margin hold: the mean must reach it, the interval must lie below it to fail."""
    assert claims.verdict_by_rule("better", [0.5] * 3, 0.5, "quick") == HOLDS


def test_the_highest_tier_with_a_verdict_counts():
    """A tier without a verdict does not outrank one with it."""
    quick, paper, open_ = (
        claims.Finding(t, (), 0, 0, v)
        for t, v in (("quick", HOLDS), ("paper", "reproduced"), ("paper", claims.NO_VERDICT))
    )
    assert claims.at_highest_tier([quick, paper]) == claims.at_highest_tier([paper, quick]) == paper
    assert claims.at_highest_tier([quick, open_]) == quick and claims.at_highest_tier([open_]) is None


def test_only_the_papers_scale_reproduces():
    """Each tier has its own words for the same effects, but what is open is called the same at both."""
    said = {
        tier: [
            claims.verdict_by_rule("better", values, 0.3, tier)
            for values in ([0.5, 0.6, 0.55], [0, 0, 0.1], [-3, 3, 1])
        ]
        for tier in claims.TIERS
    }
    assert said == {
        "quick": ["holds at this scale", "does not hold at this scale", "within noise"],
        "paper": ["reproduced", "not reproduced", "within noise"],
    }
    css = (BOOK / "_static" / "book.css").read_text()
    assert [v for v in VERDICTS if f".{v.replace(' ', '-')}" not in css] == []  # each has its colour


@pytest.mark.parametrize("values", [[0.1, 0.0, 0.2], [0.05, -0.05, 0.0], [-0.2, -0.25, -0.35], [-0.63, -0.67, -0.12]])
def test_claims_and_tables_know_one_equality(values):
    """What a table calls equivalent, a claim of equality says holds, and nothing else."""
    shown = paired.conclusion(values, 0.3)
    assert (claims.verdict_by_rule("equal", values, 0.3, "quick") == HOLDS) == shown.startswith("equivalent")


def test_a_verdict_flips_with_the_records():
    """One claim: not yet run with two seeds, holds with three, does not hold or noise when records change."""
    few = fake_runs(ste=(80, 80.2, 80.1), dcil=(81, 81.1))
    assert verdict(few) == "not yet run"
    assert verdict(fake_runs(ste=(80, 80.2, 80.1), dcil=(81, 81.1, 81.2))) == HOLDS
    assert verdict(fake_runs(ste=(80, 80.2, 80.1), dcil=(79, 79.1, 79.2))) == FAILS
    assert verdict(fake_runs(ste=(80, 80.2, 80.1), dcil=(81, 81.1, 76))) == "within noise"


def test_a_rule_looks_at_three_seeds_and_at_eight():
    """Seeds that would turn a verdict wait until the next look that was fixed beforehand, and then all count."""
    up, down = (1.0, 1.1, 1.2), (-9.0, -9.1, -9.2, -9.3, -9.4)
    for n, expected in ((3, HOLDS), (4, HOLDS), (7, HOLDS), (8, FAILS)):
        gaps = (up + down)[:n]
        found = fake_runs(ste=[80.0] * n, dcil=[80 + gap for gap in gaps])
        assert verdict(found) == expected
        assert len(claims.findings(fake_claim(), found)[0].effects) == (8 if n == 8 else 3)


def test_another_precision_is_judged_among_itself():
    """The book's verdict is on bf16; float32 records have one of their own, by the same rule, and never mix."""
    book = fake_runs(ste=(80, 80.2, 80.1), dcil=(81, 81.1, 81.2))
    lasts = {"ste": (80, 80.2, 80.1), "dcil": (79, 79.1, 79.2)}
    other = [fake_run(m, s, v, precision="float32") for m, values in lasts.items() for s, v in enumerate(values)]
    assert claims.findings(fake_claim(), book + other)[0].verdict == HOLDS
    assert claims.findings(fake_claim(), book + other, "float32")[0].verdict == FAILS


def test_only_its_own_evidence_decides():
    """Records of another tier, sparsity or network do not count, failed ones neither; dense ones fit any sparsity."""
    good = fake_runs(ste=(80, 80.2, 80.1), dcil=(81, 81.1, 81.2))
    elsewhere = [fake_run("dcil", 2, 70.0, **how) for how in ({"device": "cuda"}, {"precision": "float32"})]
    assert verdict(good + elsewhere) == HOLDS  # of a seed that has its record: shown, but it does not count
    others = [r | {"tier": "paper"} for r in good] + [r | {"status": "failed"} for r in good]
    others += [changed(r, "config", sparsity=0.95) for r in good]
    assert verdict(others) == "not yet run"
    dense = [fake_run("dense", s, 81.0, passes=("dense",), sparsity=0.0) for s in range(3)]
    rule = {"kind": "equal", "a": "dcil", "b": "dense", "margin": 0.5}
    assert verdict(good + dense, rule=rule) == HOLDS


def test_half_the_epochs_beside_all_of_them():
    """At equal compute: DCIL over half the epochs stands beside STE over all; either at the other length does not."""
    claim = {"rule": CLAIM["rule"] | {"a_epochs": 8}, "evidence": {"quick": {"sparsity": 0.9, "epochs": 16}}}
    lasts = {("dcil", 8): 80, ("dcil", 16): 99, ("ste", 8): 1, ("ste", 16): 82}
    found = [fake_run(m, s, last + s / 10, epochs=n) for (m, n), last in lasts.items() for s in range(3)]
    assert claims.findings(fake_claim(**claim), found)[0].mean == pytest.approx(-2)
    assert verdict(found, **claim) == FAILS and verdict(found[3:], **claim) == "not yet run"


def test_equal_compute_is_equal():
    """In the book's own claims at equal compute, what DCIL and its rival trained took as many MACs, within 2 %."""
    everything = records.load_all(BOOK.parent / "records", tier="quick")
    known = {claim.id: claim for claim in claims.read_claims(BOOK / "claims.yml")}
    asked = {way: equal_compute.claim_ids(way) for way in equal_compute.WAYS}
    assert {c.id for c in known.values() if c.rule.a_epochs} == {
        name for ids in asked.values() for name in ids.values()
    }
    for rival, claim in ((rival, known[name]) for ids in asked.values() for rival, name in ids.items()):
        assert claim.rule.b == rival
        found = claims.evidence(claim, "quick", everything)
        assert {r.variant for r in found} <= {claim.rule.a, rival}  # no other method, no other learning rate
        mine, theirs = ([r for r in found if r.variant == name] for name in (claim.rule.a, rival))
        if claim.id.startswith("equal-compute"):
            assert mine and theirs
        elif not mine or not theirs:
            continue
        assert equal_compute.at_budget([*mine, *theirs], mine[0].macs) == [*mine, *theirs]


def test_two_records_of_one_seed_are_refused(monkeypatch):
    """Whatever the kind of rule, neither is dropped or counted beside the other."""
    rows = [{"variant": name, "run": name, "seed": 0, "flips": 1.0} for name in ("dcil", "ste", "ste")]
    monkeypatch.setattr("dcil.lab.runs.stability.stability_table", lambda found: pd.DataFrame(rows))
    for rule in (CLAIM["rule"], SMALLER):
        with pytest.raises(DcilError, match="several runs of one seed for 'ste'"):
            claims.effects_by_seed(fake_claim(rule=rule), fake_runs(ste=(80,), dcil=(81,)) + fake_runs(ste=(80.5,)))


def test_a_pass_can_be_named():
    """A claim can be about DCIL's dense pass, beside dense training."""
    rule = {"kind": "equal", "a": "dcil", "a_pass": "dense", "b": "dense", "margin": 0.5}
    both = [fake_run("dcil", s, 85.0, passes=("sparse", "dense")) for s in range(3)]
    for r in both:
        r["final"]["passes"]["sparse"]["last"]["top1"] = 50.0
    dense = [fake_run("dense", s, 85.1, passes=("dense",), sparsity=0.0) for s in range(3)]
    assert verdict(both + dense, rule=rule) == HOLDS


def test_the_authors_number():
    """Three runs around their mean of 92.74 match it; a point below they do not."""
    claim = {
        "rule": {"kind": "matches", "a": "dcil", "margin": 0.5},
        "logs": {"dataset": "cifar10", "sparsity": 0.9, "scope": "global"},
    }
    assert verdict(fake_runs(dcil=(92.6, 92.8, 92.7)), **claim) == HOLDS
    assert verdict(fake_runs(dcil=(91.6, 91.7, 91.65)), **claim) == FAILS


def test_chapters_say_the_same():
    """A chapter lists its own claims only, each with its verdict and seeds; a share has no sign."""
    waiting = claims.verdicts_in_words(
        [fake_claim(), fake_claim(chapter="other", claim="a < b")], []
    )  # of no chapter: all
    assert "<summary>2 claims wait for their first run</summary>" in waiting and "<li>a &lt; b</li>" in waiting
    unrun = fake_claim(rule=CLAIM["rule"] | {"b": "rigl"})
    begun = claims.verdicts_in_words([fake_claim(), unrun], fake_runs(ste=(80.0,), dcil=(81.0,)))
    assert "<summary>1 more claim waits for its first run</summary>" in begun  # than those above the line
    said = claims.verdicts_in_words(
        [fake_claim(), fake_claim(chapter="other")], fake_runs(ste=(80.0,), dcil=(81.0,)), "06-cifar"
    )
    assert said == "- DCIL is better. Tier quick: **too few seeds (1 of 3)**, +1.00 points, n = 1."
    share = claims.Finding("quick", (0.8,), float("nan"), float("nan"), "not yet run")
    assert claims.measured_in_words(fake_claim(rule=SMALLER), share) == "80 % less, n = 1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verdict": "reproduced"}, "unknown field 'verdict'"),
        ({"rule": None}, "rule is empty"),
        ({"rule": {"kind": "better", "a": "dcil", "margin": 0.3}}, "has no b"),
        ({"rule": CLAIM["rule"] | {"kind": "obvious"}}, "unknown kind of rule 'obvious'"),
        ({"rule": CLAIM["rule"] | {"a": "dcill"}}, "did you mean 'dcil'"),
        ({"rule": CLAIM["rule"] | {"a": "dcil, dense_evry 4"}}, "unknown setting 'dense_evry': did you mean"),
        ({"rule": CLAIM["rule"] | {"margin": 0}}, "rule.margin is 0; it should be greater than 0"),
        ({"rule": CLAIM["rule"] | {"margin": "0.3"}}, "rule.margin is '0.3'; it should be a valid number"),
        ({"rule": CLAIM["rule"] | {"figure": "flips"}}, "rule: unknown field 'figure'"),
        (
            {"rule": {"kind": "smaller", "figure": "calm", "a": "dcil", "b": "ste", "margin": 0.1}},
            "unknown figure 'calm'",
        ),
        ({"rule": {"kind": "matches", "a": "dcil", "margin": 0.5}}, "names no setting"),
        ({"evidence": {"soon": {}}}, "unknown tier 'soon'"),
        (
            {"evidence": {"quick": {"sparsty": 0.9}}},
            "evidence.quick.sparsty: unknown setting 'sparsty': did you mean",
        ),
        ({"evidence": {"quick": None}}, "evidence.quick is empty"),
        ({"rule": CLAIM["rule"] | {"a": "ste"}}, "compares ste with itself"),
        ({"claim": ""}, "claim is empty"),
    ],
)
def test_a_bad_claim_is_named(changes, said, tmp_path):
    """A verdict written by hand, or a claim that no rule decides, is refused with the claim's name."""
    file = tmp_path / "claims.yml"
    file.write_text(yaml.safe_dump([CLAIM | changes]))
    with pytest.raises(DcilError, match=rf"claim x: .*{re.escape(said)}"):
        claims.read_claims(file)


def test_two_claims_of_one_id_are_refused(tmp_path):
    """They would share a row of every table that goes by id."""
    file = tmp_path / "claims.yml"
    file.write_text(yaml.safe_dump([CLAIM, CLAIM]))
    with pytest.raises(DcilError, match="claims.yml has two claims of one id"):
        claims.read_claims(file)


def test_the_books_claims():
    """Each has a rule about variants that a grid asks for, a chapter that exists, and no verdict in its words."""
    known = claims.read_claims(BOOK / "claims.yml")
    for claim in known:
        assert not any(word in claim.claim for word in VERDICTS)
        assert not claim.chapter or (BOOK / f"{claim.chapter}.ipynb").exists(), claim.id
        assert methods.get(claim.rule.a.split(",")[0])
    verdicts = [finding.verdict for claim in known for finding in claims.findings(claim, [])]
    assert len(verdicts) == sum(len(claim.evidence) for claim in known) and set(verdicts) == {claims.NO_VERDICT}


def test_no_verdict_is_written_into_a_page():
    """Tables typed into a chapter hold no verdict: those come from cells."""
    rows = re.compile(rf"\|\s*({'|'.join(VERDICTS)})\b", re.I)
    for path in BOOK.glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        typed = [c for c in cells if c["cell_type"] == "markdown" and rows.search("".join(c["source"]))]
        assert not typed, (path.name, typed)
