"""Verdicts on the claims of book/claims.yml: computed from records by rule, never written by a hand.

A rule looks at paired seeds, one tier at a time. Below `SEEDS` pairs there is no verdict yet. Then, with the 95 %
interval of the mean and the margin that the claim fixed beforehand:

=======  ============================================  =======================  ================================
kind     looks at                                      it holds                 it does not hold
=======  ============================================  =======================  ================================
better   accuracy of a less that of b, points          above 0, mean ≥ margin   an advantage of margin ruled out
smaller  a figure of `stability`, 1 − a/b              above 0, mean ≥ margin   an advantage of margin ruled out
equal    accuracy of a less that of b, points          equivalent (see below)   wholly outside ±margin
matches  accuracy of a less the authors' mean, points  equivalent (see below)   wholly outside ±margin
=======  ============================================  =======================  ================================

Two are equivalent by `pairs.equivalent`, as in every table: two one-sided tests at 5 %, so the 90 % interval lies
inside ±margin. Everything else needs more seeds. A difference is within noise if its interval contains zero, and
undecided if not: it is there, and whether it reaches the margin is open. Noise shows nothing to be equal, so that an
equality that is neither shown nor ruled out is undecided.

Only at the paper's own scale are the words reproduced and not reproduced. At the quick tier a claim holds at this scale
or does not.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from dcil import methods
from dcil.config import LATER
from dcil.errors import DcilError, unknown
from dcil.lab.runs import paired, stability
from dcil.lab.runs.frames import COMPARED, runs_table, variant
from dcil.lab.runs.paired import SEEDS

WORDS = {  # of a tier: it holds, it does not hold
    "quick": ("holds at this scale", "does not hold at this scale"),
    "paper": ("reproduced", "not reproduced"),
}
TIERS = tuple(WORDS)
NO_VERDICT = "not yet run"
VERDICTS = (WORDS["paper"][0], WORDS["quick"][0], "within noise", "undecided", WORDS["quick"][1], WORDS["paper"][1],
            NO_VERDICT)  # fmt: skip
FIELDS = ("id", "claim", "source", "paper", "logs", "rule", "evidence", "chapter")
OPTIONAL = ("logs", "paper", "chapter")
RULES = {  # what a rule of each kind names besides kind and margin
    "better": ("a", "b"),
    "smaller": ("figure", "a", "b"),
    "equal": ("a", "b"),
    "matches": ("a",),
}
LOGS: dict[str, Any] = json.loads(resources.files(__package__).joinpath("authors_logs.json").read_text("utf-8"))


@dataclass(frozen=True)
class Finding:
    """What the records of one tier say of a claim: effects by seed (points, or a share), interval, verdict."""

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
    def words(self) -> str:
        """The verdict; where something ran at too few seeds for one, how many there are."""
        few = 0 < len(self.effects) < SEEDS
        return f"too few seeds ({len(self.effects)} of {SEEDS})" if few else self.verdict


def read(path: str | Path) -> list[dict[str, Any]]:
    """Return the claims of a file; raises `DcilError` naming the claim for one without a rule, or with other fields."""
    try:
        claims = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DcilError(f"the claims {path} cannot be read: {error}") from error
    if not isinstance(claims, list):
        raise DcilError(f"the claims {path} must be a list")
    for number, claim in enumerate(claims, start=1):
        where = f"{path}, claim {claim.get('id', number) if isinstance(claim, dict) else number}"
        try:
            _check(claim)
        except (DcilError, TypeError, AttributeError) as error:
            raise DcilError(f"{where}: {error}") from error
    if len({claim["id"] for claim in claims}) < len(claims):
        raise DcilError(f"{path} has two claims of one id")
    return claims


def _check(claim: dict[str, Any]) -> None:  # noqa: C901
    for name in claim:
        if name not in FIELDS:
            raise unknown("field", name, FIELDS)
    for name in (field for field in FIELDS if field not in OPTIONAL):
        if not claim.get(name):
            raise DcilError(f"it has no {name}")
    rule = claim["rule"]
    if rule.get("kind") not in RULES:
        raise unknown("kind of rule", str(rule.get("kind")), RULES)
    allowed = ("kind", "margin", "a_pass", "a_epochs", *RULES[rule["kind"]])
    for name in rule:
        if name not in allowed:
            raise unknown("key of its rule", name, allowed)
    for name in ("margin", *RULES[rule["kind"]]):
        if name not in rule:
            raise DcilError(f"its rule of kind {rule['kind']} has no {name}")
    if not isinstance(rule["margin"], (int, float)) or not rule["margin"] > 0:
        raise DcilError(f"its margin is {rule['margin']!r}; it must be a positive number")
    for name in (rule[k].split(",")[0] for k in ("a", "b") if k in rule):
        methods.get(name)
    if rule["a"] == rule.get("b") and "a_pass" not in rule:
        raise DcilError(f"its rule compares {rule['a']} with itself; a and b must be two")
    if rule["kind"] == "smaller" and rule["figure"] not in stability.FIGURES:
        raise unknown("figure", rule["figure"], stability.FIGURES)
    if rule["kind"] == "matches" and not _logged(claim):
        raise DcilError("its rule needs the authors' logs, and `logs` names no setting of theirs")
    for tier, wanted in claim["evidence"].items():
        if tier not in TIERS:
            raise unknown("tier", tier, TIERS)
        if not isinstance(wanted, dict):
            raise DcilError(f"its evidence at tier {tier} is {wanted!r}; it must name settings")


def _logged(claim: dict[str, Any]) -> dict[str, Any]:
    """Return the setting of the authors' logs that a claim names; empty where there is none."""
    asked = claim.get("logs")
    return next((s for s in LOGS["settings"] if asked and all(s[k] == v for k, v in asked.items())), {})


def evidence(
    claim: dict[str, Any], tier: str, records: Sequence[dict[str, Any]], precision: str | None = None
) -> list[dict[str, Any]]:
    """Return the records that decide a claim at a tier of its evidence; dense runs, of no sparsity, belong to any.

    They are of one precision: the book's (`COMPARED`), or another that is asked for. Where a rule says `a_epochs`, its
    a was trained for so many, and for those of the evidence everything else.
    """
    wanted = COMPARED[tier] | ({"precision": precision} if precision else {}) | claim["evidence"][tier]
    rule = claim.get("rule", {})

    def fits(config: dict[str, Any]) -> bool:
        own = {"epochs": rule["a_epochs"]} if "a_epochs" in rule and variant(config) == rule["a"] else {}
        free = ("sparsity",) if not methods.get(config["method"]).prunes else ()
        return all((LATER | config).get(k) == v for k, v in (wanted | own).items() if k not in free)

    return [r for r in records if r["tier"] == tier and r["status"] == "complete" and fits(r["config"])]


def sides(claim: dict[str, Any], found: Sequence[dict[str, Any]]) -> tuple[pd.Series, pd.Series]:
    """Return by seed the two values that a claim's rule compares; of `matches`, b are the authors' runs."""
    rule = claim["rule"]
    if rule["kind"] == "smaller":
        figures = stability.table(list(found))
        a, b = (paired.one_a_seed(figures[figures["variant"] == rule[k]], rule[k], rule["figure"]) for k in "ab")
        return a, b
    table = runs_table(list(found))
    a = paired.by_seed(table, rule["a"], rule.get("a_pass"))
    if rule["kind"] == "matches":
        return a, pd.Series([run["last"] for run in _logged(claim)["runs"]], dtype=float)
    return a, paired.by_seed(table, rule["b"])


def effects(claim: dict[str, Any], found: Sequence[dict[str, Any]]) -> list[float]:
    """Return a claim's effect at each seed that has what its rule compares, in the order of the seeds."""
    a, b = sides(claim, found)
    kind = claim["rule"]["kind"]
    each = 1 - a / b if kind == "smaller" else a - (_logged(claim)["last"][0] if kind == "matches" else b)
    return each.dropna().sort_index().tolist()


def judge(kind: str, values: Sequence[float], margin: float, tier: str) -> str:
    """Return the verdict that a kind of rule gives on effects and a margin, in a tier's words; see the table above."""
    if len(values) < SEEDS:
        return NO_VERDICT
    mean, low, high = paired.interval(values)
    if kind in ("better", "smaller"):
        yes, no = low > 0 and mean >= margin, high < margin
        open_still = "within noise" if low <= 0 <= high else "undecided"
    else:
        yes, no = bool(paired.equivalent(values, margin)), low > margin or high < -margin
        open_still = "undecided"
    holds, does_not = WORDS[tier]
    return does_not if no else holds if yes else open_still


def findings(claim: dict[str, Any], records: Sequence[dict[str, Any]], precision: str | None = None) -> list[Finding]:
    """Return what the records (by default those of the book's precision) say of a claim, at each tier that it names."""
    result = []
    for tier in claim["evidence"]:
        values = effects(claim, evidence(claim, tier, records, precision))
        _, low, high = paired.interval(values)
        verdict = judge(claim["rule"]["kind"], values, claim["rule"]["margin"], tier)
        result.append(Finding(tier, tuple(values), low, high, verdict))
    return result


def in_words(claim: dict[str, Any], mean: float, low: float, high: float) -> str:
    """Return a claim's effect and its interval in words: points, or percent less."""
    if claim["rule"]["kind"] == "smaller":
        return paired.signed(100 * mean, 100 * low, 100 * high, digits=0).replace("+", "") + " % less"
    return paired.signed(mean, low, high) + " points"


def measured(claim: dict[str, Any], finding: Finding) -> str:
    """Return a finding in words: the mean effect with its interval and the number of paired seeds."""
    if not finding.effects:
        return "not run"
    return f"{in_words(claim, finding.mean, finding.low, finding.high)}, n = {len(finding.effects)}"


def table(claims: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the front page's table, one row for each claim and tier that it names."""
    rows = []
    for claim in claims:
        logged = _logged(claim)
        logs = f"{logged['last'][0]:.2f} last, {logged['best_any'][0]:.2f} best" if logged else ""
        for finding in findings(claim, records):
            rows.append(
                {
                    "claim": claim["claim"],
                    "source": claim["source"],
                    "the paper says": claim.get("paper") or "",
                    "the authors' logs say, %": logs,
                    "tier": finding.tier,
                    "we measured": measured(claim, finding),
                    "verdict": finding.words,
                    "state": finding.verdict,
                    "chapter": claim.get("chapter") or "",
                }
            )
    return pd.DataFrame(rows)


def page(claims: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]) -> str:
    """Return the same as HTML, one row for each claim, a cell for each tier with its verdict as a badge.

    Each cell says its column too (`data-label`), so that a narrow screen can show a row as a card.
    """
    rows = []
    for text, part in table(claims, records).groupby("claim", sort=False):
        first, tiers = part.iloc[0], part.set_index("tier")
        link = f' <a href="{first["chapter"]}.html">chapter</a>' if first["chapter"] else ""
        row = {
            "claim": html.escape(text) + link,
            "claimed by": html.escape(first["source"]),
            "the paper says": html.escape(str(first["the paper says"])),
            "the authors' logs, %": html.escape(first["the authors' logs say, %"]),
        }
        for tier in TIERS:
            found = tiers.loc[tier] if tier in tiers.index else None
            row[f"tier {tier}"] = "" if found is None else _badge(found)
        rows.append(row)
    head = [name for name in rows[0] if any(row[name] for row in rows)]  # a column that is empty throughout is left out
    header = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(_cell(name, row[name]) for name in head) + "</tr>\n" for row in rows)
    return f'<table class="dataframe claims">\n<thead><tr>{header}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>'


def _cell(name: str, content: str) -> str:
    return f'<td data-label="{html.escape(name)}">{content}</td>' if content else '<td class="none">–</td>'


def _badge(row: pd.Series) -> str:
    words, _, wanted = row["verdict"].partition(" (")  # "too few seeds (1 of 3)"
    badge = f'<span class="verdict {row["state"].replace(" ", "-")}">{html.escape(words)}</span>'
    if row["we measured"] == "not run":
        return badge
    effect, _, seeds = row["we measured"].rpartition(", n = ")
    seeds = wanted.removesuffix(")") or seeds
    return f"{badge} <br>{html.escape(effect)}, {f'n = {seeds}'.replace(' ', '&nbsp;')}"


def counted(claims: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]) -> str:
    """Return in a sentence how many claims have which verdict, tier by tier."""
    parts = [f"{len(claims)} claims."]
    for tier in TIERS:
        found = [f.verdict for claim in claims for f in findings(claim, records) if f.tier == tier]
        said = ", ".join(f"{found.count(v)} *{v}*" for v in VERDICTS if v in found)
        parts.append(f"At tier **{tier}**: {said}.")
    return " ".join(parts)


def sentences(claims: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]], chapter: str | None = None) -> str:
    """Return, as a list in Markdown, each claim (of a chapter) with its verdicts."""
    lines = []
    for claim in (c for c in claims if chapter in (None, c.get("chapter"))):
        said = [
            f"tier {f.tier}: **{f.words}**" + (f", {measured(claim, f)}" if f.effects else "")
            for f in findings(claim, records)
        ]
        lines.append(f"- {claim['claim']} {'; '.join(said).capitalize()}.")
    return "\n".join(lines)
