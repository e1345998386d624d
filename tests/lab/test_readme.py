"""The results in README.md are what the records say, and nobody writes them by hand."""

import errno
import os
import re

import pytest

from dcil import records
from dcil.cli.main import main
from dcil.config import preset
from dcil.errors import DcilError
from dcil.lab import checkout
from dcil.lab.book import readme
from dcil.lab.evidence import claims
from tests.lab.fakes import changed, fake_claim, fake_run, fake_runs

README = (checkout.root() / "README.md").read_text()


def rows(table):
    """Return the cells of a Markdown table, row by row, without its head; of links, their words."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [[re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell) for cell in line] for line in lines[2:]]


def of_quick(method, epochs, *lasts, passes=1, **changes):
    """Return runs of a method at tier quick, one seed each."""
    found = [fake_run(method, seed, last, scope="global", epochs=epochs, **changes) for seed, last in enumerate(lasts)]
    return [changed(one, "cost", train_macs=30 * passes) for one in found]


def test_readme_says_what_the_records_say():
    """README.md is as `make readme` writes it."""
    found = records.load_all(checkout.root() / "records")
    known = claims.read_claims(checkout.root() / "book" / "claims.yml")
    current = readme.with_blocks(README, readme.readme_blocks(known, found))
    assert current == README, "the results in README.md are not what claims and records say; mend it with `make readme`"


def test_a_full_disk_leaves_readme_as_it_was(tmp_path, monkeypatch):
    """README.md, in which people write, is replaced only by the whole of the new text."""

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("book", "records"):
        (tmp_path / name).symlink_to(checkout.root() / name)
    (tmp_path / "README.md").write_text(README)
    monkeypatch.setattr(checkout, "root", lambda: tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        readme.main()
    assert (tmp_path / "README.md").read_text() == README


def test_readme_has_the_verdicts_that_the_command_prints(capsys):
    """Every verdict of `python -m dcil claims` on a claim of the paper's, with what was measured, in its order."""
    known = claims.read_claims(checkout.root() / "book" / "claims.yml")
    papers = [claim.id for claim in known if not claim.source.startswith("this book")]
    main(["claims"])
    printed = [re.split(r"  +", line.strip()) for line in capsys.readouterr().out.splitlines()[1:]]
    decided = [line[1:4] for line in printed if len(line) > 4 and line[2] != "not yet run" and line[0] in papers]
    (block,) = [match[0] for match in readme.BLOCK.finditer(README) if match["name"] == "verdicts"]
    assert [cells[1:] for cells in rows(block)] == decided != []


def test_a_verdict_changes_with_the_records():
    """With two seeds a claim is only counted; with three it has a row with tier, verdict and measure."""
    few = readme.verdict_table([fake_claim()], fake_runs(ste=(80, 80.2), dcil=(81, 81.1)))
    assert "1 have too few seeds" in few and rows(few) == []
    full = readme.verdict_table([fake_claim()], fake_runs(ste=(80, 80.2, 80.1), dcil=(81, 81.3, 81.1)))
    (row,) = rows(full)
    assert row[:3] == ["DCIL is better.", "quick", "holds at this scale"] and row[3].endswith("points, n = 3")
    assert "[holds at this scale](book/06-cifar.ipynb)" in full


def test_equal_compute_gives_dcil_half_the_epochs():
    """DCIL over half the epochs stands beside rivals over all of them; over all, DCIL has another budget."""
    epochs = preset("quick").epochs
    dense, ste = of_quick("dense", epochs, 90.0, sparsity=0.0), of_quick("ste", epochs, 82.0, 82.1, 82.2)
    half, whole = (of_quick("dcil", n, 80.0, 80.2, 80.1, passes=2) for n in (epochs // 2, epochs))
    said = readme.equal_compute_tables([*dense, *ste, *half, *whole])
    assert f"against its rivals over {epochs}. DCIL ends below STE. Training for {epochs // 2} epochs in place" in said
    first, last = rows(said)
    assert first[:2] == [f"STE, {epochs} epochs", "3"] and first[3].startswith("-2.00 (")
    assert last[:2] == [f"DCIL, {epochs // 2} epochs", "3"]
    longer = of_quick("ste", 2 * epochs, 84.0, 84.1, 84.2)
    twice = readme.equal_compute_tables([*dense, *ste, *half, *whole, *longer])
    assert twice.endswith(said) and rows(twice)[0][:2] == [f"STE, {2 * epochs} epochs", "3"]
    assert f"DCIL over {epochs} epochs against its rivals over {2 * epochs}. DCIL ends below STE." in twice
    assert readme.equal_compute_tables([*dense, *ste, *half, *whole, *longer[:2]]) == said
    for missing in (dense, half):
        assert readme.equal_compute_tables([r for r in [*dense, *ste, *half, *whole] if r not in missing]) == "Not run."


@pytest.mark.parametrize(
    "text",
    [
        "no block at all",
        "<!-- sum: written by `make readme` -->\n3\n",
        "<!-- total: written by `make readme` -->\n3\n<!-- end -->",
        2 * "<!-- sum: written by `make readme` -->\n3\n<!-- end -->\n",
    ],
)
def test_a_block_that_is_lost_is_named(text):
    """A mark that was removed, renamed or copied is an error, so that no table goes missing in silence."""
    with pytest.raises(DcilError, match="expected \\['sum'\\], each once"):
        readme.with_blocks(text, {"sum": "4"})


def test_the_record_to_compare_with_is_there(capsys):
    """README's and the guide's command names one record of the book's, by the beginning of its id."""
    for guide in ("README.md", "book/running.md"):
        (line,) = [row for row in (checkout.root() / guide).read_text().splitlines() if "records diff runs/" in row]
        named = line.split()[-1]
        assert main(["records", "diff", named, named]) == 0
        assert named in capsys.readouterr().out
