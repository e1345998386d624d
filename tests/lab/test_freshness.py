"""Notes on executions: what a chapter depends on, and why it is stale."""

import json

import pytest

from dcil.cli import main as cli
from dcil.errors import DcilError
from dcil.lab.book import freshness
from dcil.lab.checkout import root


def notebook(source, outputs=()):
    def cell(source, *tags, outputs=()):
        return {
            "cell_type": "code",
            "id": source[0],
            "metadata": {"tags": tags},
            "source": source,
            "outputs": outputs,
            "execution_count": 1,
        }

    cells = [cell('preset = "smoke"  # which', "parameters"), cell(source, outputs=outputs)]
    kernel = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "dcil": {"reads": ["records"]},
    }
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A small checkout with one chapter that reads records."""
    files = {
        "_toc.yml": "",
        "book/01-one.ipynb": notebook("n = 1"),
        "dcil/a.py": "1",
        "dcil/b.html": "1",
        "records/x.json": "{}",
        "requirements.lock": "torch",
        "experiments/g.yaml": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("DCIL_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_chapter_depends_on_itself_the_code_and_what_it_reads(book):
    """Records, because the chapter declares them; neither grids nor the citation."""
    assert freshness.chapter_inputs("book/01-one.ipynb", book) == [
        "book/01-one.ipynb",
        "dcil/a.py",
        "dcil/b.html",
        "records/x.json",
        "requirements.lock",
    ]


# The calls by which a chapter reads something, and the name under which it must declare that.
CALLS = {
    "load_all(": "records", "load_compared(": "records", "benchmarks.read_benchmarks(": "benchmarks",
    "small_devices.read_device_results(": "benchmarks", "grid.read_grid(": "grids", "claims.read_claims(": "claims",
    "verdict_log.read_log(": "verdicts", "assumptions.read_assumptions(": "assumptions", "read_published(": "published",
    "citation.read_citation(": "citation", "chapters.title_and_costs(": "chapters",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted((root() / "book").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_chapter_declares_what_it_calls_for(path):
    """Nothing is read undeclared, or a stale page would pass for fresh, and nothing is declared in vain."""
    source = "".join(line for cell in json.loads(path.read_text())["cells"] for line in cell["source"])
    called = {name for words, name in CALLS.items() if words in source}
    assert called == set(freshness.declared_reads(path))


def test_every_read_leads_to_files():
    """No pattern is left over from a file that is gone."""
    assert set(CALLS.values()) == set(freshness.READS)
    assert all(list(root().glob(pattern)) for patterns in freshness.READS.values() for pattern in patterns)


def test_an_unknown_read_is_refused(tmp_path):
    """The error suggests the nearest name."""
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"metadata": {"dcil": {"reads": ["record"]}}, "cells": []}))
    with pytest.raises(DcilError, match="did you mean 'records'"):
        freshness.declared_reads(path)


def executed(book):
    out = "_build/executed/01-one.ipynb"
    assert cli.main(["chapter", "book/01-one.ipynb", "--out", out, "-p", "preset", "quick"]) == 0
    return freshness.read_notes(book / "_build" / "executed")


def test_fresh_until_something_it_reads_changes(book, capsys):
    """The note has what was given, each kind of change has its reason, and outputs do not count."""
    notes = executed(book)
    note = notes["01-one"]
    assert (note.preset, note.parameters) == ("quick", {}) and note.seconds > 0
    assert freshness.why_stale(note, book) == "" and cli.main(["status"]) == 0
    (book / "book/01-one.ipynb").write_text(notebook("n = 1", [{"output_type": "stream", "text": "1"}]))
    assert freshness.why_stale(note, book) == ""
    (book / "dcil/a.py").write_text("2")
    for number in range(5):
        (book / f"records/y{number}.json").write_text("{}")
    (book / "records/x.json").unlink()
    why = freshness.why_stale(note, book)
    assert why == (
        "changed: dcil/a.py; new: records/y0.json, records/y1.json, records/y2.json and 2 more; gone: records/x.json"
    )
    capsys.readouterr()
    assert cli.main(["status"]) == 1 and "stale" in capsys.readouterr().out


def test_the_page_links_each_chapter_and_says_where_it_ran(book):
    """A page that was not executed says so, and the machine is named once."""
    notes = executed(book)
    page = freshness.status_page(["01-one", "02-two"], notes, book)
    assert "| [](01-one.ipynb) |" in page and "| quick | fresh |" in page
    assert "| [](02-two.ipynb) | | | | **not executed** |" in page
    assert page.count(f"PyTorch {notes['01-one'].torch}") == 1 and page.startswith("| page |")
    assert freshness.status_page(["01-one"], {}, book).startswith("No page was executed for this site")


def test_a_foreign_note_is_named(book, capsys):
    """A file that is no note, or not even JSON, is named and left as it is."""
    for text in ('{"a": 1}', "[1]", "not JSON"):
        (book / "x.json").write_text(text)
        assert cli.main(["status", "--executed", "."]) == 2
        assert "x.json is not a note of an executed chapter" in capsys.readouterr().err
        assert (book / "x.json").read_text() == text


def test_a_committed_chapter_gets_no_note(book):
    """`make refresh` writes into book/, where nothing may hold a clock."""
    assert cli.main(["chapter", "book/01-one.ipynb", "--out", "book/01-one.ipynb"]) == 0
    assert sorted(path.name for path in (book / "book").iterdir()) == ["01-one.ipynb"]


@pytest.mark.parametrize(("seconds", "said"), [(3.4, "3 s"), (59.6, "1 min 00 s"), (754, "12 min 34 s")])
def test_durations(seconds, said):
    """Seconds are rounded before they are divided into minutes."""
    assert freshness.duration_in_words(seconds) == said
