"""The book's own abstract, computed from records: what holds, at what cost, what does not, and at what scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dcil.config import preset
from dcil.lab.evidence import claims, familywise
from dcil.lab.evidence.claims import FAILS, HOLDS, Claim, Finding, Findings
from dcil.lab.runs.names import data_set_label, label, network_label
from dcil.lab.tables.equal_compute import WAYS, decided_ways, half_epochs_gaps
from dcil.lab.wording import listed, number_of
from dcil.run_record import Run

RIVAL = "better-than-st3-stepwise"  # the claim on the strongest rival
OVER_NONE = {95: "ste-gradient-helps", 90: "ste-gradient-helps-90"}  # claims on STE's gradient, by sparsity (%)


def abstract(known: Sequence[Claim], runs: Sequence[Run], tier: str = "quick", verdicts: str = "verdicts") -> str:
    """Return the book's own abstract as a list in Markdown: what holds, at what cost, what does not, and at what scale.

    Every number is a finding on a claim at `tier`, or comes from the runs that decide one; a sentence whose claims have
    no verdict is left out. `verdicts` is the link to the page of that name.
    """
    found = claims.findings_by_id(known, runs)
    decided = {name: tiers[tier] for name, tiers in found.items() if tier in tiers and tiers[tier].has_verdict}
    pairs = {c.id: c.rule for c in known if c.id in decided and isinstance(c.rule, claims.Pair)}
    at_equal_compute = {
        way: {rule.b: decided[name] for name, rule in pairs.items() if name.startswith(f"{way}-")}
        for way in decided_ways([c.id for c in known if tier in c.evidence], decided)
    }
    half_the_epochs = _cost_of_half_the_epochs(known, runs, tier)
    no_advantage = f"no advantage of {pairs[RIVAL].margin:g}" if RIVAL in pairs else ""
    said = [_gain(decided, no_advantage), _equal_compute(at_equal_compute, half_the_epochs), _ingredients(decided)]
    usual = preset(tier)
    scale = (
        f"Scale: {data_set_label(usual.dataset)}, {network_label(usual.model)}, "
        f"{usual.epochs} epochs (tier *{tier}*). {_corrected(known, runs, tier, verdicts)} "
        f"{_paper_scale(found, runs)}"
    )
    return "\n".join(f"- {sentence}" for sentence in [*filter(None, said), scale])


def _n(*findings: Finding) -> str:
    """Return the number of pairs of findings, as in "n = 3 or 8"."""
    return f"n = {listed(sorted({len(finding.effects) for finding in findings}), 'or')}"


def _gain(decided: Mapping[str, Finding], no_advantage: str) -> str:
    """Return a sentence on DCIL and STE at equal epochs; it says on which side DCIL ends where the interval does."""
    gains = {share: gain for share in (90, 95) if (gain := decided.get(f"better-than-ste-{share}"))}
    if not gains:
        return ""
    ends = [f"{gain.mean:+z.2f} points at {share} % sparsity{_unless_it_holds(gain)}" for share, gain in gains.items()]
    ends[1:] = [end.replace(" points", "").replace(" sparsity", "") for end in ends[1:]]  # said once
    ends[-1] += f" ({_n(*gains.values())})"
    above = [f"{share} %" for share, gain in gains.items() if gain.low > 0]
    if above:
        side = "ends above STE" + (f" at {listed(above)}" if len(above) < len(gains) else "")
    else:
        side = "ends below STE" if all(gain.high < 0 for gain in gains.values()) else "is not shown to end above STE"
    said = f"**At equal epochs, twice the compute, DCIL {side}**: {' and '.join(ends)}"
    if rival := decided.get(RIVAL):
        advantage = no_advantage if rival.verdict in FAILS else _in_short(rival)
        said += f"; against {label('st3_stepwise')} {rival.mean:+z.2f} at 90 % ({_n(rival)}, {advantage})"
    swaps = decided.get("fewer-exchanges")
    if swaps and swaps.verdict in HOLDS:
        said += f". At 95 % it exchanges {100 * swaps.mean:.0f} % fewer weights than STE"
    return f"{said}."


def _unless_it_holds(finding: Finding) -> str:
    return "" if finding.verdict in HOLDS else f" ({_in_short(finding)})"


def _in_short(finding: Finding) -> str:
    return finding.verdict.removesuffix(" at this scale")


def _cost_of_half_the_epochs(known: Sequence[Claim], runs: Sequence[Run], tier: str) -> float:
    """Return by how many points halving its epochs moves DCIL, from the runs that decide its claims against STE."""
    asked = [c for c in known if c.id in ("better-than-ste-90", "equal-compute-ste") and tier in c.evidence]
    mine = [run for claim in asked for run in claims.evidence(claim, tier, runs) if run.variant == "dcil"]
    return half_epochs_gaps(mine, "dcil", preset(tier).epochs).mean()


def _equal_compute(found: Mapping[str, Mapping[str, Finding]], half_the_epochs: float) -> str:
    """Return sentences on DCIL at equal compute, by way (see `WAYS`) and rival: where it ends the first way decided.

    Of the other ways they give the range of the mean differences, and of DCIL what half the epochs cost by themselves.
    """
    decided = [way for way in WAYS if found.get(way)]
    if not decided:
        return ""
    said = f"**At equal compute, {WAYS[decided[0]]}, {_ends(found[decided[0]])}."
    alone = "" if math.isnan(half_the_epochs) else f"{half_the_epochs:+z.2f}"
    if alone and decided[0] == "equal-compute":
        said += f" Half the epochs alone move DCIL by {alone}."
    ranges = [
        f"{_range(found[way])} {WAYS[way]}" + (f" (DCIL alone {alone})" if alone and way == "equal-compute" else "")
        for way in decided[1:]
    ]
    return said + (f" The differences are {listed(ranges)}." if ranges else "")


def _range(by_rival: Mapping[str, Finding]) -> str:
    """Return the range of some mean differences, in points."""
    means = [finding.mean for finding in by_rival.values()]
    return " to ".join(dict.fromkeys(f"{end:+z.2f}" for end in (min(means), max(means))))


def _ends(by_rival: Mapping[str, Finding]) -> str:
    """Return in words which rivals DCIL ends above or below, where the interval shows it, and where it does not."""
    below = {name: f.mean for name, f in by_rival.items() if f.high < 0}
    above = {name: f.mean for name, f in by_rival.items() if f.low > 0}
    ends = [
        f"{side} {listed([f'{label(name)} ({mine[name]:+z.2f})' for name in sorted(mine, key=mine.__getitem__)])}"
        for side, mine in (("below", below), ("above", above))
        if mine
    ]
    rest = [
        f"against {label(name)} {'not ahead' if f.verdict in FAILS else f.verdict}"
        for name, f in by_rival.items()
        if name not in below | above
    ]
    said = f"it ends {' and '.join(ends)}**" if ends else "no interval excludes zero**"
    return said + (f"; {listed(rest)}" if rest else "") + f" ({_n(*by_rival.values())})"


def _ingredients(decided: Mapping[str, Finding]) -> str:
    """Return sentences on what gradients for pruned weights gain over none, and what teaching adds."""
    over_none = {share: f for share, name in OVER_NONE.items() if (f := decided.get(name))}
    said = []
    if over_none:
        gains = "shows no gain" if all(f.verdict in FAILS for f in over_none.values()) else "was measured"
        ends = listed([f"{f.mean:+z.2f} at {share} %" for share, f in over_none.items()])
        said.append(f"**STE's gradient for pruned weights {gains} over none**: {ends} ({_n(*over_none.values())}).")
    parts = {
        "the refined gradient without teaching adds {}": decided.get("refined-gradient-helps"),
        "teaching {}": decided.get("mutual-loss"),
    }
    worth = [what.format(f"{f.mean:+z.2f}") + f" ({_n(f)}, {_in_short(f)})" for what, f in parts.items() if f]
    if worth:
        said.append(f"At 95 % {listed(worth)}.")
    return " ".join(said)


def _corrected(known: Sequence[Claim], runs: Sequence[Run], tier: str, verdicts: str) -> str:
    """Return how many claims that hold are beyond chance together, and whether the gain over STE is among them."""
    table = familywise.corrected_table(known, runs)
    mine = table[(table["tier"] == tier) & table["p"].notna()].set_index("id")
    holds = mine["verdict"].isin(HOLDS)
    left = holds & (mine["p, Holm"] < familywise.LEVEL)
    gains = {share: left[name] for share in (90, 95) if (name := f"better-than-ste-{share}") in left}
    stays, goes = ([f"at {share} %" for share, stay in gains.items() if stay == which] for which in (True, False))
    gain = "both gains over STE" if len(stays) > 1 else f"the gain over STE {''.join(stays)}"
    among = f", among them {gain}" if stays else ""
    if goes:
        among += f", not {listed(goes) if stays else 'the gain over STE'}"
    stay = f"{left.sum()} of {holds.sum()} that hold {'stays' if left.sum() == 1 else 'stay'} beyond chance"
    return f"Corrected for {len(mine)} comparisons, [{stay}]({verdicts}){among}."


def _paper_scale(found: Findings, runs: Sequence[Run]) -> str:
    paper = [run for run in runs if run.tier == "paper" and run.complete]
    verdicts = [tiers["paper"] for tiers in found.values() if "paper" in tiers]
    if decided := sum(f.has_verdict for f in verdicts):
        return f"At the paper's scale {decided} of {len(verdicts)} claims are decided."
    done = f"{number_of(len(paper), 'run')} {'are' if len(paper) != 1 else 'is'} done"
    return f"**At the paper's scale nothing is decided yet**: {done}."
