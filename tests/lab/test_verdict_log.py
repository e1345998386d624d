"""The log of verdicts: it follows from the records, entry by entry, and nothing changes in silence."""

import datetime

import pytest

from dcil import records
from dcil.cli import main as cli
from dcil.errors import DcilError
from dcil.lab.checkout import root
from dcil.lab.evidence import claims, verdict_log
from tests.lab.fakes import fake_claim

LOG = root() / "book" / "verdicts.yml"
FIRST = {("a", "quick"): ("not yet run", "not run"), ("b", "paper"): ("not yet run", "not run")}
THEN = {("a", "quick"): ("holds at this scale", "+0.50 points, n = 3"), ("c", "quick"): ("within noise", "n = 4")}


def entry(day, why, changes):
    """Return an entry of a day in January."""
    return verdict_log.LogEntry(date=datetime.date(2026, 1, day), why=why, changes=changes)


def test_the_log_ends_at_what_the_records_say():
    """If this fails, a verdict has changed: `python -m dcil claims` says which."""
    found = verdict_log.current_verdicts(
        claims.read_claims(root() / "book" / "claims.yml"), records.load_all(root() / "records")
    )
    changed = verdict_log.changes_since(verdict_log.read_log(LOG), found)
    assert changed == [], 'enter it: python -m dcil claims --log "WHY"'


def test_only_changes_are_entered_and_replaying_gives_the_verdicts(tmp_path):
    """Claims that are new, changed and gone are entered; the text of older entries stays."""
    log = tmp_path / "verdicts.yml"
    verdict_log.append_entry(log, verdict_log.changes_since([], FIRST), "The claims: they begin.")
    before = log.read_text()
    changed = verdict_log.changes_since(verdict_log.read_log(log), THEN)
    assert [(c.claim, c.was, c.to) for c in changed] == [
        ("a", "not yet run", "holds at this scale"),
        ("c", None, "within noise"),
        ("b", "not yet run", None),
    ]
    verdict_log.append_entry(
        log, changed, "third seeds, long enough to need a second line in the file: " + "word " * 30
    )
    entries = verdict_log.read_log(log)
    assert log.read_text().startswith(before)
    assert verdict_log.replay(entries) == {key: verdict for key, (verdict, _) in THEN.items()}
    assert verdict_log.changes_since(entries, THEN) == []


def test_history_is_newest_first_and_gathers_what_came_in_without_a_verdict():
    """Claims that begin share one row, and a claim that is gone is withdrawn."""
    entries = [entry(1, "begin", verdict_log.changes_since([], FIRST))]
    entries.append(entry(2, "seeds", verdict_log.changes_since(entries, THEN)))
    newest, oldest = verdict_log.history(entries, [fake_claim(id="a", claim="A |holds|.")]).split("\n\n**")
    assert newest.startswith("**2026-01-02.** seeds") and oldest.startswith("2026-01-01.** begin")
    assert r"| A \|holds\|. | quick | not yet run | holds at this scale | +0.50 points, n = 3 |" in newest
    assert "| `c` | quick | new | within noise |" in newest and "| `b` | paper | not yet run | withdrawn |" in newest
    assert oldest.endswith("| 2 claims | quick, paper | new | not yet run |  |")
    assert "begin" in (one := verdict_log.history(entries, [], "paper")) and "quick" not in one


def test_a_log_that_cannot_be_is_refused(tmp_path):
    """An entry without a reason, or one that does not follow from those before it, is refused."""
    log = tmp_path / "verdicts.yml"
    log.write_text("- {date: 2026-01-01, why: '', changes: []}")
    with pytest.raises(DcilError, match="entry 1: why is empty; changes is empty"):
        verdict_log.read_log(log)
    log.write_text("- {date: soon, why: x, changes: [{claim: a, tier: quick, to: null, seen: null}]}")
    with pytest.raises(DcilError, match="entry 1: date is 'soon'; it should be a valid date; changes.0 has no from"):
        verdict_log.read_log(log)
    with pytest.raises(DcilError, match="say why"):
        verdict_log.append_entry(log, [], " ")
    jump = [entry(1, "x", verdict_log.changes_since([], FIRST))] * 2
    with pytest.raises(DcilError, match="but it was 'not yet run'"):
        verdict_log.replay(jump)


def test_the_command_enters_what_changed(tmp_path, monkeypatch, capsys):
    """It exits with 1 while the log is behind, enters the changes with a reason, and then has none to enter."""
    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "book" / "claims.yml").write_text((root() / "book" / "claims.yml").read_text())
    monkeypatch.setenv("DCIL_ROOT", str(tmp_path))
    assert cli.main(["claims"]) == 1 and "since the log: " in capsys.readouterr().out
    assert cli.main(["claims", "--log", "they begin"]) == 0
    assert cli.main(["claims"]) == 0
    assert cli.main(["claims", "--log", "again"]) == 2 and "nothing to enter" in capsys.readouterr().err
