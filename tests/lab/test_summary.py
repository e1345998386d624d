"""The page and the slides say what the records say, fit their paper, and do without Chromium."""

import functools
import re
import types
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from dcil import records
from dcil.lab import checkout
from dcil.lab.book import summary
from dcil.lab.evidence import claims
from dcil.lab.page import paper
from dcil.lab.templating import render
from tests.lab.fakes import fake_claim, fake_runs

KNOWN = claims.read_claims(checkout.root() / "book" / "claims.yml")
FOUND = records.load_all(checkout.root() / "records")
GOOD, BAD = (81.0, 81.2, 81.1), (80.0, 80.1, 80.2)


@functools.cache
def values():
    """Return what the pages of the book show."""
    return summary.summary_values(KNOWN, FOUND)


def page(name, *given):
    """Return a page of the book, or of given claims and runs, as parsed HTML."""
    shown = summary.summary_values(*given) if given else values()
    return BeautifulSoup(render(name, scale=1, pdf="", **shown), "html.parser")


def words(node):
    """Return the text of a part of a page, on one line."""
    return re.sub(r"\s+", " ", node.get_text())


@pytest.mark.parametrize("name", summary.PAGES)
def test_every_decided_claim_is_there_with_its_numbers(name):
    """Every decided claim stands there with mean, interval and number of seeds."""
    said = words(page(name))
    drawn = {d.name for d in summary.decided_differences(KNOWN, FOUND)}
    assert len(drawn) > 10
    for claim in KNOWN:
        for finding in claims.findings(claim, FOUND):
            if finding.has_verdict:
                number = claims.measured_in_words(claim, finding)
                assert number in said or number.replace(" points", "") in said, claim.id


def test_a_claim_stands_where_its_verdict_puts_it():
    """With results the other way round it no longer holds; without records it is unknown."""
    one = fake_claim(claim="a < b & so on")

    def under(heading, found):
        title = page("summary", [one], found).find("h2", string=re.compile(heading))
        return words(title.find_next(["ul", "p"])) if title else ""

    assert "a < b & so on +1" in under("^What holds", fake_runs(ste=BAD, dcil=GOOD))
    assert "a < b & so on -1" in under("^What does not hold", fake_runs(ste=GOOD, dcil=BAD))
    assert under("^What holds", []) == "No claim holds so far."
    assert under("^What is unknown: 1 claim with", []) == "a < b & so on"
    assert "points, n" not in words(page("summary", [one], [])) and "points, n" not in words(page("slides", [one], []))


def test_equal_compute_is_a_picture_of_its_claims():
    """Each claim is a line that says the rival, DCIL's epochs and the rival's."""
    drawn = [d for d in summary.decided_differences(KNOWN, FOUND) if " against " in d.name]
    rivals = ("STE", "gradual magnitude", "RigL", "ST-3")
    half = [f"{rival}: 8 against 16" for rival in rivals]
    assert [d.name for d in drawn][: len(half)] == half
    shown = page("slides").find("h2", string=re.compile("equal compute")).find_next(class_="differences")
    assert [node.text for node in shown.select(".name")] == [d.name for d in drawn]


def test_pictures_are_to_scale():
    """Zero and all intervals lie on the axis, in order."""
    shown = [summary.Difference("a", 1.0, 0.5, 1.5, 3, "x"), summary.Difference("b", -1.0, -3.0, 1.0, 3, "x")]
    axis = summary.axis(shown)
    ends = [axis.at(end) for d in shown for end in (d.low, d.high)] + [axis.at(0)]
    assert min(ends) > 0 and max(ends) < 100 and axis.at(-1.0) < axis.at(0) < axis.at(1.0)
    assert axis.ticks == [-3, -2, -1, 0, 1]
    assert len(summary.Axis(-20, 30).ticks) <= 8 and 0 in summary.Axis(-20, 30).ticks


def test_there_are_ten_slides():
    """Each of them has a heading."""
    slides = page("slides").select("section.slide")
    assert len(slides) == 10 and all(slide.find(["h1", "h2"]) for slide in slides)


def test_without_chromium_the_pages_are_there_and_say_no_pdf(tmp_path, monkeypatch):
    """An older PDF is removed, since it may say something else; the reason is given, and the build goes on."""
    monkeypatch.setattr(paper, "CHROMIUM", tmp_path / "nowhere")
    monkeypatch.setattr(summary, "summary_values", lambda known, found: values())
    (tmp_path / "summary.pdf").write_text("old")
    why_not = summary.write_summary(tmp_path)
    assert len(why_not) == 2 and "summary.pdf is left out: there is no Chromium at" in why_not[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slides.html", "summary.html"]
    assert all(".pdf" not in path.read_text() for path in tmp_path.iterdir())
    app = types.SimpleNamespace(outdir=str(tmp_path), builder=types.SimpleNamespace(format="html"))
    summary.on_finished(app, None)


def test_a_chromium_that_fails_is_said_too(tmp_path, monkeypatch):
    """It may end with an error, or write nothing."""
    (tmp_path / "page.html").write_text("<p>words")
    for program, why in (("/bin/false", "exit status 1"), ("/bin/true", "it wrote nothing")):
        monkeypatch.setattr(paper, "CHROMIUM", Path(program))
        assert why in paper.print_pdf(tmp_path / "page.html", tmp_path / "page.pdf")
    assert not (tmp_path / "page.pdf").exists()


@pytest.mark.parametrize("error, kind", [(None, "latex"), (ValueError("no"), "html")])
def test_nothing_is_written_of_a_site_that_is_not_there(tmp_path, error, kind):
    """Nothing is written after a failed build, or for print."""
    app = types.SimpleNamespace(outdir=str(tmp_path), builder=types.SimpleNamespace(format=kind))
    summary.on_finished(app, error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.browser
def test_text_shrinks_until_it_fits_its_paper(tmp_path):
    """The page takes one sheet even with six more claims, and a page that fits keeps its size."""
    more = [*KNOWN, *(claim.model_copy(update={"id": f"{claim.id}-again"}) for claim in KNOWN[:6])]
    for name, known in (("short", KNOWN[:3]), ("long", more)):
        (tmp_path / name).mkdir()
        target = tmp_path / name / "summary.html"
        assert summary._write_page(target, 1, summary.summary_values(known, FOUND)) == ""
        assert paper.count_pages(target.with_suffix(".pdf")) == 1
        assert ("calc(1 *" in target.read_text()) == (name == "short")
