"""The verdicts of a tier as a family: each claim's p-value, corrected for multiple comparisons.

A verdict looks at one claim alone, but of twenty false claims one looks true by chance. Holm's correction (Holm 1979)
keeps the probability that any does below 5 %, however the claims depend on each other. It is shown beside the verdicts
and changes none. The family is the claims of a tier that have a verdict.

===============  ===================================  ===================
kind             null hypothesis                      paired test
===============  ===================================  ===================
better, smaller  no difference                        t, two-sided
equal, matches   a difference of at least the margin  two one-sided t
===============  ===================================  ===================
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dcil.lab.evidence import claims
from dcil.lab.evidence.claims import Claim
from dcil.lab.runs import paired
from dcil.run_record import Run

COLUMNS = ["id", "claim", "tier", "verdict", "measured", "unpaired", "p", "p, Holm"]
LEVEL = 0.05


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down procedure, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected


def claim_p_value(rule: claims.Rule, values: Sequence[float]) -> float:
    """Return the p-value of effects by seed under a rule's null hypothesis; the table above names the test."""
    if rule.kind in ("better", "smaller"):
        return paired.p_difference(values)
    return paired.p_equivalence(values, rule.margin)


def unpaired_interval(claim: Claim, found: Sequence[Run]) -> tuple[float, float, float]:
    """Return a claim's effect with Welch's interval (mean, low, high), as if the seeds were not paired.

    The seeds are those of the paired interval, so that both are about the same runs. A share (kind "smaller") is
    computed from the ratio of geometric means. For "matches", the other side is the authors' runs, one by one.
    """
    a, b = claims.compared_values(claim, found)
    if claim.rule.kind != "smaller":
        return paired.welch_interval(a, b)
    mean, low, high = paired.welch_interval(np.log(a), np.log(b))
    return 1 - math.exp(mean), 1 - math.exp(high), 1 - math.exp(low)


def corrected_table(known: Sequence[Claim], runs: Sequence[Run], precision: str | None = None) -> pd.DataFrame:
    """Return one row for each claim and tier: verdict, paired and unpaired interval, p-value before and after Holm.

    The p-values are numbers, NaN for a claim without a verdict; the intervals are in words.
    """
    rows = []
    for claim in known:
        for finding in claims.findings(claim, runs, precision):
            decided = finding.has_verdict
            apart = unpaired_interval(claim, claims.evidence(claim, finding.tier, runs, precision)) if decided else None
            rows.append(
                {
                    "id": claim.id,
                    "claim": claim.claim,
                    "tier": finding.tier,
                    "verdict": finding.verdict,
                    "measured": claims.measured_in_words(claim, finding),
                    "unpaired": claims.effect_in_words(claim, *apart) if apart else "",
                    "p": claim_p_value(claim.rule, finding.effects) if decided else math.nan,
                }
            )
    result = pd.DataFrame(rows, columns=COLUMNS)
    for _, part in result.dropna(subset="p").groupby("tier"):
        result.loc[part.index, "p, Holm"] = holm(part["p"].tolist())
    return result


def with_p_in_words(found: pd.DataFrame) -> pd.DataFrame:
    """Return a `corrected_table` with its p-values as text, "" for those that are NaN."""
    return found.assign(**{name: found[name].map(_p_in_words) for name in ("p", "p, Holm")})


def _p_in_words(p: float) -> str:
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def survivors_in_words(found: pd.DataFrame) -> str:
    """Return in words, by tier, for how many claims that hold, and that do not, the corrected p is below 5 %."""
    parts = []
    for tier, (holds, fails) in claims.WORDS.items():
        mine = found[(found["tier"] == tier) & found["p"].notna()]
        held, failed = (mine[mine["verdict"] == verdict] for verdict in (holds, fails))
        if len(held) or len(failed):
            parts.append(
                f"At tier **{tier}**, {len(held)} of {len(mine)} claims hold and {len(failed)} do not, each taken "
                f"alone. After the correction over all {len(mine)}, p stays below {LEVEL:g} for {_left(held)} that "
                f"hold, and for {_left(failed)} that do not."
            )
    return " ".join(parts) or "None of these claims holds, or fails to hold, so far."


def _left(claims_of_one_kind: pd.DataFrame) -> str:
    left = int((claims_of_one_kind["p, Holm"] < LEVEL).sum())
    return f"{left or 'none'} of the {len(claims_of_one_kind)}"
