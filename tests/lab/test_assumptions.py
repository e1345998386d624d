"""What the paper leaves open: every entry is complete, settings come from the code, effects from records."""

from pathlib import Path

import pytest
import yaml

from dcil import preset
from dcil.errors import DcilError
from dcil.lab.runs import frames
from dcil.lab.tables import assumptions
from tests.lab.fakes import fake_runs

BOOK = Path(__file__).parents[2] / "book" / "assumptions.yml"
ENTRY = {"question": "q", "authors": "a", "ours": "o", "fields": ["mask_period"], "variant": "ste"}


def test_the_books_entries():
    """All can be read, their variants name methods, and settings show the preset's values."""
    entries = assumptions.read_assumptions(BOOK)
    shown = assumptions.assumptions_table(entries, frames.runs_table([]), preset("paper"))
    assert len(shown) == len(entries) > 12
    assert (
        shown["our setting"].str.contains("mask_period = 16").any()
        and shown["our setting"].str.contains("ramp_end = 225").any()
    )
    assert assumptions.EFFECT not in shown  # nothing ran, so there is no column of empty cells


def test_effects_come_from_records():
    """DCIL minus the variant at equal seeds, by its name on a page, with its interval; no variant, no effect."""
    runs = fake_runs(ste=(80, 80.5), dcil=(81, 81.7))
    entries = [assumptions.Assumption(**ENTRY | {"variant": name}) for name in ("ste", None, "gmp")]
    measured, *others = assumptions.assumptions_table(entries, frames.runs_table(runs), preset("quick"))[
        assumptions.EFFECT
    ]
    assert measured.startswith("STE: +1.10 (") and measured.endswith("n = 2") and others == ["", ""]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"effect": "+1"}, "unknown field 'effect'"),
        ({"ours": ""}, "ours is empty"),
        ({"fields": ["mask_perod"]}, "did you mean 'mask_period'"),
        ({"variant": "dcil_shard"}, "did you mean 'dcil_shared'"),
    ],
)
def test_a_bad_entry_is_named(changes, said, tmp_path):
    """An effect written by hand, an empty answer or an unknown name is refused with the entry's number."""
    (tmp_path / "a.yml").write_text(yaml.safe_dump([ENTRY, ENTRY | changes]))
    with pytest.raises(DcilError, match=f"entry 2.*{said}"):
        assumptions.read_assumptions(tmp_path / "a.yml")
