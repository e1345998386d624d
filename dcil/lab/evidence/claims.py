"""Verdicts on the claims in book/claims.yml: computed from records by rule, never written by hand.

A rule compares two sides at paired seeds, one tier at a time. Below three pairs there is no verdict. The numbers of
pairs at which it looks are fixed beforehand: three and eight (`dcil.lab.runs.compared`). It then decides by the 95 %
interval of the mean difference and a margin that the claim fixed beforehand:

=======  =============================================  =======================  ================================
kind     compares                                       holds if                 does not hold if
=======  =============================================  =======================  ================================
better   accuracy of a minus that of b, points          above 0, mean ≥ margin   interval wholly below margin
smaller  a figure of `stability`, 1 − a/b               above 0, mean ≥ margin   interval wholly below margin
equal    accuracy of a minus that of b, points          equivalent (see below)   interval wholly outside ±margin
matches  accuracy of a minus the authors' mean, points  equivalent (see below)   interval wholly outside ±margin
=======  =============================================  =======================  ================================

"Above 0" means that the whole interval is. Equivalence is `paired.equivalent`, as in every table: two one-sided tests
at 5 %, so the 90 % interval lies inside ±margin.

A claim that neither holds nor fails needs more seeds. A claimed advantage is then "within noise" if the interval
contains zero, else "undecided": there is a difference, but whether it reaches the margin is open. A claimed equality is
then always "undecided", because noise shows nothing to be equal.

"Reproduced" and "not reproduced" are said only at the paper's own scale. At the quick tier a claim "holds at this
scale", or does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

import pandas as pd
from markupsafe import escape
from pydantic import Field, PositiveInt, model_validator

from dcil.errors import DcilError
from dcil.lab.evidence.authors_logs import logged_setting
from dcil.lab.runs import paired, stability
from dcil.lab.runs.compared import SEEDS, is_compared, looked_at, reached
from dcil.lab.runs.frames import runs_table
from dcil.lab.yaml_files import Entry, Setting, Variant, Words, one_of, read_entries
from dcil.run_record import Run

WORDS = {  # the verdicts of each tier: holds, does not hold
    "quick": ("holds at this scale", "does not hold at this scale"),
    "paper": ("reproduced", "not reproduced"),
}
HOLDS, FAILS = zip(*WORDS.values(), strict=True)  # at any tier
TIERS = tuple(WORDS)
NO_VERDICT = "not yet run"
Tier = Annotated[str, one_of("tier", TIERS)]


class Rule(Entry):
    """What decides a claim. `a` is the variant that the claim is about, `a_pass` its pass (default: the deployed one).

    `a_epochs` trains `a` for fewer epochs than the evidence says, so that it computes no more than its rival.
    """

    kind: str
    margin: float = Field(gt=0)
    a: Variant
    a_pass: str | None = None
    a_epochs: PositiveInt | None = None


class Pair(Rule):
    """A rule that compares `a` with `b`."""

    b: Variant

    @model_validator(mode="after")
    def compares_two(self) -> Self:
        """Refuse to compare a variant with itself, unless `a_pass` names a pass."""
        if self.a == self.b and self.a_pass is None:
            raise DcilError(f"it compares {self.a} with itself; a and b must be two")
        return self


class PairOfAccuracies(Pair):
    """A rule that compares the accuracies of two variants."""

    kind: Literal["better", "equal"]


class PairOfFigures(Pair):
    """A rule that compares a figure of `stability` of two variants."""

    kind: Literal["smaller"]
    figure: Annotated[str, one_of("figure", stability.FIGURES)]


class MatchesLogs(Rule):
    """A rule that compares `a` with the authors' logs."""

    kind: Literal["matches"]


class Claim(Entry):
    """A claim as book/claims.yml has it; the head of that file says what each field is."""

    id: Words
    claim: Words
    source: Words
    paper: str | None = None
    logs: dict[str, Any] | None = None
    rule: Annotated[PairOfAccuracies | PairOfFigures | MatchesLogs, Field(discriminator="kind")]
    evidence: dict[Tier, dict[Setting, Any]] = Field(min_length=1)
    chapter: str | None = None

    @model_validator(mode="after")
    def logs_are_there(self) -> Self:
        """Refuse a claim about the authors' logs that names no setting of theirs."""
        if self.rule.kind == "matches" and not self.logged:
            raise DcilError("its rule needs the authors' logs, and `logs` names no setting of theirs")
        return self

    @property
    def logged(self) -> dict[str, Any] | None:
        """The setting of the authors' logs that the claim names, with its runs."""
        return logged_setting(**self.logs) if self.logs else None

    @property
    def authors(self) -> dict[str, Any]:
        """The same for a rule of kind "matches", for which reading the claim has made sure that the setting exists."""
        assert self.logged is not None
        return self.logged


Findings: TypeAlias = "Mapping[str, Mapping[str, Finding]]"  # by a claim's id, then by tier


@dataclass(frozen=True)
class Finding:
    """What the records of one tier say about a claim: effects by seed (points, or a share), interval, verdict."""

    tier: str
    effects: tuple[float, ...]
    low: float
    high: float
    verdict: str

    @property
    def mean(self) -> float:
        """The mean effect."""
        return sum(self.effects) / len(self.effects) if self.effects else math.nan

    @property
    def has_verdict(self) -> bool:
        """Whether there are enough seeds for a verdict, which may be that the claim is still open."""
        return self.verdict != NO_VERDICT

    @property
    def words(self) -> str:
        """The verdict; if there are some runs but too few seeds for a verdict, how many seeds there are."""
        few = 0 < len(self.effects) < SEEDS
        return f"too few seeds ({len(self.effects)} of {SEEDS})" if few else self.verdict


def at_highest_tier(found: Iterable[Finding]) -> Finding | None:
    """Return the finding at the highest tier among those with a verdict, None if there is none."""
    return max((f for f in found if f.has_verdict), key=lambda f: TIERS.index(f.tier), default=None)


def read_claims(path: str | Path) -> list[Claim]:
    """Return the claims of a file; raises `DcilError` naming the first that lacks a field or has unknown ones."""
    claims = read_entries(path, Claim, "claim")
    if len({claim.id for claim in claims}) < len(claims):
        raise DcilError(f"{path} has two claims of one id")
    return claims


def evidence(claim: Claim, tier: str, runs: Iterable[Run], precision: str | None = None) -> list[Run]:
    """Return the runs that decide a claim at one tier, those of its rule's variants; dense ones match any sparsity.

    All are of one precision: `precision`, or by default the book's (`COMPARED`). If the rule has `a_epochs`, its `a`
    was trained for that many epochs, everything else for those that the evidence says.
    """
    setting, rule = claim.evidence[tier], claim.rule
    asked = {rule.b: setting} if isinstance(rule, Pair) else {}
    asked[rule.a] = setting | {"epochs": rule.a_epochs} if rule.a_epochs else setting
    return looked_at(
        run for run in runs if run.variant in asked and is_compared(run, tier, asked[run.variant], precision)
    )


def compared_values(claim: Claim, found: Sequence[Run]) -> tuple[pd.Series, pd.Series]:
    """Return the values of a and b that a claim's rule compares, by seed: at seeds that both have, up to the last look.

    For `matches`, b holds the authors' runs, which have no seeds.
    """
    rule = claim.rule
    if isinstance(rule, PairOfFigures):
        figures = stability.stability_table(found)
        a, b = (stability.figure_by_seed(figures, name, rule.figure) for name in (rule.a, rule.b))
    else:
        table = runs_table(found)
        a = paired.by_seed(table, rule.a, rule.a_pass)
        if isinstance(rule, MatchesLogs):
            return _up_to_the_last_look(a), pd.Series([run["last"] for run in claim.authors["runs"]], dtype=float)
        b = paired.by_seed(table, rule.b)
    pairs = _up_to_the_last_look(pd.concat([a, b], axis=1, keys=["a", "b"], join="inner"))
    return pairs["a"], pairs["b"]


_BySeed = TypeVar("_BySeed", pd.Series, pd.DataFrame)


def _up_to_the_last_look(by_seed: _BySeed) -> _BySeed:
    measured = by_seed.dropna().sort_index()
    return measured.head(reached(len(measured)))


def effects_by_seed(claim: Claim, found: Sequence[Run]) -> list[float]:
    """Return a claim's effect at each seed that both sides have, in order of seeds, up to the last look."""
    a, b = compared_values(claim, found)
    match claim.rule.kind:
        case "smaller":
            effects = 1 - a / b
        case "matches":
            effects = a - claim.authors["last"][0]
        case _:
            effects = a - b
    return effects.tolist()


def verdict_by_rule(kind: str, values: Sequence[float], margin: float, tier: str) -> str:
    """Return the verdict of a kind of rule on effects by seed, in the words of a tier; see the table above."""
    if len(values) < SEEDS:
        return NO_VERDICT
    mean, low, high = paired.t_interval(values)
    if kind in ("better", "smaller"):
        yes, no = low > 0 and mean >= margin, high < margin
        open_still = "within noise" if low <= 0 <= high else "undecided"
    else:
        yes, no = bool(paired.equivalent(values, margin)), low > margin or high < -margin
        open_still = "undecided"
    holds, does_not = WORDS[tier]
    return does_not if no else holds if yes else open_still


def findings(claim: Claim, runs: Iterable[Run], precision: str | None = None) -> list[Finding]:
    """Return what runs of a precision (by default the book's) say about a claim, at each tier of its evidence."""
    result = []
    for tier in claim.evidence:
        effects = effects_by_seed(claim, evidence(claim, tier, runs, precision))
        _, low, high = paired.t_interval(effects)
        verdict = verdict_by_rule(claim.rule.kind, effects, claim.rule.margin, tier)
        result.append(Finding(tier, tuple(effects), low, high, verdict))
    return result


def findings_by_id(known: Sequence[Claim], runs: Sequence[Run]) -> Findings:
    """Return what the records say about each claim, by its id and by tier."""
    return {claim.id: {f.tier: f for f in findings(claim, runs)} for claim in known}


def effect_in_words(claim: Claim, mean: float, low: float, high: float) -> str:
    """Return a claim's effect and its interval in words: in points, or in percent less."""
    if claim.rule.kind == "smaller":
        return paired.signed_interval(100 * mean, 100 * low, 100 * high, digits=0).replace("+", "") + " % less"
    return paired.signed_interval(mean, low, high) + " points"


def measured_in_words(claim: Claim, finding: Finding) -> str:
    """Return a finding in words: the mean effect with its interval and the number of paired seeds."""
    if not finding.effects:
        return "not run"
    return f"{effect_in_words(claim, finding.mean, finding.low, finding.high)}, n = {len(finding.effects)}"


def verdicts_in_words(known: Sequence[Claim], runs: Sequence[Run], chapter: str | None = None) -> str:
    """Return a list in Markdown: each claim (of a chapter, if given) with its verdicts at the tiers that have effects.

    Claims without any are folded into one line that opens.
    """
    lines, waiting = [], []
    for claim in known:
        if chapter not in (None, claim.chapter):
            continue
        begun = [finding for finding in findings(claim, runs) if finding.effects]
        if not begun:
            waiting.append(f"<li>{escape(claim.claim)}</li>")
            continue
        said = "; ".join(f"tier {f.tier}: **{f.words}**, {measured_in_words(claim, f)}" for f in begun)
        lines.append(f"- {claim.claim} {said.capitalize()}.")
    if waiting:
        count = f"{len(waiting)} more" if lines else f"{len(waiting)}"
        summary = f"{count} claim{'s wait for their' if len(waiting) > 1 else ' waits for its'} first run"
        lines.append(f"\n<details><summary>{summary}</summary><ul>{''.join(waiting)}</ul></details>")
    return "\n".join(lines)
