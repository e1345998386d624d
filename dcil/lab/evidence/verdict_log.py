"""When a verdict changed, to what and why: the log book/verdicts.yml, written by `python -m dcil claims --log "WHY"`.

The log holds changes only. Replayed, it gives today's verdicts; a test fails if the records say otherwise, so no
verdict changes silently.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from pydantic import Field

from dcil.errors import DcilError
from dcil.io.files import write_text_atomically
from dcil.lab.evidence import claims
from dcil.lab.evidence.claims import Claim
from dcil.lab.templating import markdown_table
from dcil.lab.wording import number_of
from dcil.lab.yaml_files import Entry, Words, read_entries
from dcil.run_record import Run

HEAD = """\
# When a verdict changed, to what and why. Written by `python -m dcil claims --log "WHY"`, never by hand.
# from: null is a claim that is new; to: null one that is gone. seen: what the records said on that day.
"""
Key = tuple[str, str]  # a claim's id and a tier


class Change(Entry):
    """One verdict's change; `was` is None if the claim is new, `to` is None if it was withdrawn."""

    claim: Words
    tier: Words
    was: str | None = Field(alias="from")
    to: str | None
    seen: str | None


class LogEntry(Entry):
    """What changed on one day, and why."""

    date: datetime.date
    why: Words
    changes: list[Change] = Field(min_length=1)


def current_verdicts(
    known: Sequence[Claim], runs: Sequence[Run], precision: str | None = None
) -> dict[Key, tuple[str, str]]:
    """Return the verdict on each claim at each tier, and what was measured, from the runs (of a precision)."""
    verdicts = {}
    for claim in known:
        for found in claims.findings(claim, runs, precision):
            verdicts[claim.id, found.tier] = found.verdict, claims.measured_in_words(claim, found)
    return verdicts


def read_log(path: str | Path) -> list[LogEntry]:
    """Return the log's entries, oldest first; raises `DcilError` for an entry without a date, a reason or a change."""
    return read_entries(path, LogEntry) if Path(path).exists() else []


def replay(entries: Iterable[LogEntry]) -> dict[Key, str]:
    """Return the verdicts at the end of a log; raises `DcilError` if an entry contradicts the entries before it."""
    state: dict[Key, str | None] = {}
    for entry in entries:
        for change in entry.changes:
            key = change.claim, change.tier
            if state.get(key) != change.was:
                raise DcilError(
                    f"the log of {entry.date} changes {key} from {change.was!r}, but it was {state.get(key)!r}"
                )
            state[key] = change.to
    return {key: verdict for key, verdict in state.items() if verdict}


def changes_since(entries: Iterable[LogEntry], found: dict[Key, tuple[str, str]]) -> list[Change]:
    """Return the changes since the log's last entry, in the order of `found`, withdrawn claims last."""
    before = replay(entries)
    gone = {key: (None, None) for key in before if key not in found}
    return [
        Change.model_validate({"claim": key[0], "tier": key[1], "from": before.get(key), "to": verdict, "seen": seen})
        for key, (verdict, seen) in (found | gone).items()
        if before.get(key) != verdict
    ]


def append_entry(path: str | Path, changed: list[Change], why: str) -> None:
    """Append an entry with today's date to a log; raises `DcilError` without a reason. Earlier entries are kept."""
    if not why.strip():
        raise DcilError("say why the verdicts changed")
    today = LogEntry(date=datetime.datetime.now(datetime.UTC).date(), why=why.strip(), changes=changed)
    entries = [*read_log(path), today]
    text = HEAD + "".join(_dump(entry) for entry in entries)
    write_text_atomically(Path(path), text)


def _dump(entry: LogEntry) -> str:
    """Return an entry in YAML with one change per line, so that diffs of the log are readable."""
    lines = [
        yaml.safe_dump(
            [change.model_dump(by_alias=True)],
            default_flow_style=True,
            width=10_000,
            sort_keys=False,
            allow_unicode=True,
        )
        for change in entry.changes
    ]
    items = "".join(f"  - {line.strip()[1:-1]}\n" for line in lines)
    why = yaml.safe_dump({"why": entry.why}, width=110, allow_unicode=True).replace("\n ", "\n   ").rstrip()
    return f"\n- date: {entry.date}\n  {why}\n  changes:\n{items}"


def history(entries: Sequence[LogEntry], known: Sequence[Claim], tier: str | None = None) -> str:
    """Return the log in Markdown, newest first: date and reason, then a table of the changes, at one tier or at all.

    New claims without a verdict share one row. A claim that is no longer `known` is shown by its id.
    """
    words, parts = {claim.id: claim.claim for claim in known}, []
    for entry in reversed(entries):
        wanted = [c for c in entry.changes if tier in (None, c.tier)]
        entered = [c for c in wanted if c.was is None and c.to == claims.NO_VERDICT]
        rows = [
            (words.get(c.claim, f"`{c.claim}`"), c.tier, c.was or "new", c.to or "withdrawn", c.seen or "")
            for c in wanted
            if c not in entered
        ]
        if entered:
            of_tiers, of_claims = {c.tier for c in entered}, {c.claim for c in entered}
            tiers = ", ".join(t for t in claims.TIERS if t in of_tiers)
            rows.append((number_of(len(of_claims), "claim"), tiers, "new", claims.NO_VERDICT, ""))
        if rows:
            table = markdown_table(("claim", "tier", "was", "is", "measured"), rows)
            parts.append(f"**{entry.date}.** {entry.why}\n\n{table}")
    return "\n\n".join(parts)
