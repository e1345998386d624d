"""The claims as the front page shows them, in groups by verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dcil.lab.evidence import claims
from dcil.lab.evidence.authors_logs import logs_in_words
from dcil.lab.evidence.claims import FAILS, HOLDS, Claim, Finding
from dcil.lab.runs.compared import SEEDS
from dcil.lab.templating import render
from dcil.run_record import Run


@dataclass(frozen=True)
class Cell:
    """A claim at one tier: its verdict and what was measured, in words."""

    state: str
    measured: str


@dataclass(frozen=True)
class Row:
    """A claim as the front page shows it; `progress` says how many seeds it has if they are too few for a verdict."""

    claim: str
    source: str
    logs: str
    chapter: str
    tiers: dict[str, Cell] = field(default_factory=dict)
    progress: str = ""


@dataclass(frozen=True)
class Group:
    """Claims with like verdicts, each at the highest tier at which it has one."""

    title: str
    meaning: str
    rows: list[Row]
    folded: bool = False

    @property
    def tiers(self) -> list[str]:
        """The tiers at which any row has a verdict."""
        return [tier for tier in claims.TIERS if any(tier in row.tiers for row in self.rows)]


def claim_groups(known: Sequence[Claim], runs: Sequence[Run]) -> list[Group]:
    """Return the claims in four groups: those that hold, those that are open, those that do not hold, and the rest."""
    groups = {
        "Holds": Group("Holds", "The records show what is claimed, as the rule asks.", []),
        "Open": Group("Open", "Measured, and neither shown nor ruled out.", []),
        "Does not hold": Group("Does not hold", "The records rule out what is claimed, at the size of its margin.", []),
        "": Group("Too few seeds for a verdict so far", "A verdict needs three paired seeds.", [], folded=True),
    }
    for claim in known:
        found = claims.findings(claim, runs)
        tiers = {f.tier: Cell(f.verdict, claims.measured_in_words(claim, f)) for f in found if f.has_verdict}
        seeds = max((len(f.effects) for f in found), default=0)
        progress = f"{seeds} of {SEEDS} seeds." if seeds and not tiers else ""
        row = Row(
            claim.claim,
            claim.source,
            logs_in_words(claim.logged),
            claim.chapter or "",
            tiers,
            progress,
        )
        groups[_standing(claims.at_highest_tier(found))].rows.append(row)
    return list(groups.values())


def _standing(finding: Finding | None) -> str:
    if finding is None:
        return ""
    return "Holds" if finding.verdict in HOLDS else "Does not hold" if finding.verdict in FAILS else "Open"


def claims_page(known: Sequence[Claim], runs: Sequence[Run]) -> str:
    """Return the groups of claims as HTML, a table each; those without a verdict are folded into one line."""
    return render("claims", groups=claim_groups(known, runs))


def count_in_words(known: Sequence[Claim], runs: Sequence[Run]) -> str:
    """Return a sentence saying how many claims each group has."""
    holds, still_open, fails, rest = (len(group.rows) for group in claim_groups(known, runs))
    return (
        f"Of {len(known)} claims, {holds} hold, {still_open} are open, {fails} do not hold, and {rest} have too few "
        "seeds for a verdict so far."
    )
