"""For the page "your own network": when to choose DCIL, and what accuracy to expect, from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from dcil.lab.evidence.claims import FAILS, HOLDS, Finding, Findings
from dcil.lab.runs.compared import SEEDS
from dcil.lab.runs.frames import at_sparsity, spread
from dcil.lab.runs.names import label
from dcil.lab.tables import equal_compute, small_devices
from dcil.lab.wording import times_from_to
from dcil.run_record import Run

#: By rival, the claim on DCIL minus that rival at equally many epochs.
EQUAL_EPOCHS = {"ste": "better-than-ste-90", "rigl_returning": "better-than-rigl-returning",
                "gmp_stepwise": "better-than-gmp-stepwise", "st3_stepwise": "better-than-st3-stepwise"}  # fmt: skip
#: The same at equal compute, by budget.
EQUAL_COMPUTE = {
    f"the same computation, {words}": equal_compute.claim_ids(way) for way, words in equal_compute.WAYS.items()
}
BUDGETS = {"as many epochs": EQUAL_EPOCHS, **EQUAL_COMPUTE}
SHOWN = (*EQUAL_EPOCHS, "dcil", "dcil, dense_every 4")


def _decided(found: Findings, asked: Mapping[str, str], tier: str) -> dict[str, Finding]:
    """Return, by rival, the findings at a tier that have a verdict, the largest effect first."""
    all_of_tier = {rival: found.get(claim, {}).get(tier) for rival, claim in asked.items()}
    mine = {rival: f for rival, f in all_of_tier.items() if f and f.has_verdict}
    return dict(sorted(mine.items(), key=lambda item: -item[1].mean))


def gains_by_budget(found: Findings, tier: str = "quick") -> pd.DataFrame:
    """Return one row for each rival and budget with a verdict: DCIL minus the rival in points, interval, seeds.

    The budget is one of `BUDGETS`: as many epochs, at which DCIL computes twice as much, or the same computation.
    Within a budget, the largest effect comes first.
    """
    rows = [
        (rival, budget, f.mean, f.low, f.high, len(f.effects), f.verdict)
        for budget, asked in BUDGETS.items()
        for rival, f in _decided(found, asked, tier).items()
    ]
    columns = ["variant", "budget", "DCIL minus it, points", "low", "high", "n", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _effects(found: Mapping[str, Finding], verdict: bool = False) -> str:
    """Return text such as "DCIL minus STE is +1.35 points, minus RigL +2.71", with the verdicts if `verdict`."""
    said = [
        f"minus {label(rival)} {'' if place else 'is '}{f.mean:+z.2f}{'' if place else ' points'}"
        + (f" (advantage: {f.verdict})" if verdict else "")
        for place, (rival, f) in enumerate(found.items())
    ]
    return f"DCIL {', '.join(said)}"


def reasons_for(found: Findings, tier: str = "quick") -> str:
    """Return a list in Markdown of when to use DCIL; every effect is DCIL minus the rival."""
    ahead = {rival: f for rival, f in _decided(found, EQUAL_EPOCHS, tier).items() if f.verdict in HOLDS}
    swaps = _decided(found, {"ste": "fewer-exchanges"}, tier).get("ste")
    said = []
    if ahead:
        said.append(
            "**your epochs are limited and your computation is not.** Trained for as many epochs, with twice the "
            f"computation, {_effects(ahead)}."
        )
    if swaps and swaps.verdict in HOLDS:
        said.append(
            "**your masks have to settle.** Once the sparsity is final, DCIL exchanges "
            f"{100 * swaps.mean:.0f} % fewer weights than STE. [Chapter 4](04-stability) has "
            "ways of one pass that settle too."
        )
    said.append('**you want a dense network beside the sparse one.** `dual.export("dense")` is the second pass.')
    return "\n".join(f"- {line}" for line in said)


def reasons_against(found: Findings, devices: pd.DataFrame, tier: str = "quick") -> str:
    """Return a list in Markdown of when not to use DCIL; `devices` comes from `small_devices.read_device_results`."""
    behind = {
        budget: mine
        for budget, asked in EQUAL_COMPUTE.items()
        if (mine := {rival: f for rival, f in _decided(found, asked, tier).items() if f.verdict in FAILS})
    }
    open_still = {rival: f for rival, f in _decided(found, EQUAL_EPOCHS, tier).items() if f.verdict not in HOLDS}
    said = []
    if behind:
        said.append(
            "**your computation is limited.** A step of DCIL computes two passes, one of its rivals a single one. "
            + " ".join(f"Given {budget}, {_effects(mine)}." for budget, mine in behind.items())
        )
    if open_still:
        names = " or ".join(label(rival) for rival in open_still)
        said.append(
            f"**you can take {names} instead.** Trained for as many epochs, with twice the computation, "
            f"{_effects(open_still, verdict=True)}."
        )
    if speeds := _speeds(devices):
        said.append(
            f"**you want a faster network.** Zeros rarely save time: on one core the masked networks of "
            f"[chapter 10](10-small-devices) run {speeds} as fast as the dense ones."
        )
    return "\n".join(f"- {line}" for line in said)


def _speeds(devices: pd.DataFrame) -> str:
    """Return the range of masked networks' speeds relative to dense ones, for one image on one thread; "" if none."""
    timed = small_devices.alone(devices)
    masked = timed[timed["variant"] == "masked"]["speedup"]
    return times_from_to(masked) if len(masked) else ""


def expected_table(runs: Sequence[Run], usual: int) -> pd.DataFrame:
    """Return one row for each method, sparsity and length of schedule with at least `SEEDS` seeds, dense first.

    Columns: last-epoch top-1 (%) of the deployed pass as mean ± sample deviation over seeds, their number n, and the
    training's MACs as a multiple of the dense run's. A name says its epochs unless they are the `usual` ones. The runs
    must be of one data set, network and precision.
    """
    rows = []
    for sparsity in sorted({run.config.sparsity for run in runs}):
        ends = equal_compute.schedules_table(at_sparsity(runs, sparsity))
        ends = ends[ends["variant"].isin(SHOWN if sparsity else ("dense",)) & (ends["n"] >= SEEDS)]
        for end in ends.sort_values("mean", ascending=False).itertuples():
            name = end.variant if end.epochs == usual else equal_compute.schedule_label(end.variant, end.epochs)
            rows.append(
                {
                    "method": label(name),
                    "top-1, %": spread(end.lasts).replace(" ", "\u00a0"),  # on one line on a phone
                    "n": end.n,
                    "sparsity, %": f"{100 * sparsity:g}",
                    "cost, dense runs": f"{end.cost:.3g}",
                }
            )
    return pd.DataFrame(rows, columns=["method", "top-1, %", "n", "sparsity, %", "cost, dense runs"])
