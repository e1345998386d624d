"""How to cite: one file says it, everything else follows from it."""

import json
import re

import pytest

from dcil.errors import DcilError
from dcil.lab.book import citation
from dcil.lab.checkout import root

CFF = citation.read_citation(root() / "CITATION.cff")


def test_zenodo_s_metadata_is_that_of_the_citation_file():
    """.zenodo.json is what the module prints, so a deposit says what CITATION.cff says."""
    assert json.loads((root() / ".zenodo.json").read_text()) == citation.zenodo(CFF), "python -m dcil.lab.book.citation"


def test_bibtex_has_the_book_and_the_paper():
    """Two entries with balanced braces; people as BibTeX reads them, a group kept whole."""
    text = citation.bibtex(CFF)
    assert re.findall(r"^@(\w+)", text, re.M) == ["software", "inproceedings"]
    assert text.count("{") == text.count("}")
    assert "author = {{the DCIL book's contributors}}" in text and "Jangho Kim and Jayeon Yoo and" in text


def test_the_readme_cites_the_same():
    """The block of README.md is the one that the front page computes."""
    assert f"```bibtex\n{citation.bibtex(CFF)}\n```" in (root() / "README.md").read_text()


def test_the_bibliography_has_the_paper_as_the_citation_file_does():
    """The paper's title, DOI and key are the same in the book's list of references."""
    paper, listed = CFF["references"][0], (root() / "book" / "references.bib").read_text()
    entry = re.search(r"@inproceedings{kim2021dcil,.*?\n}", listed, re.S).group()
    assert paper["title"] in entry and paper["doi"] in entry and "kim2021dcil" in citation.bibtex(CFF)


def test_a_citation_file_that_lacks_something_is_named(tmp_path):
    """What the Citation File Format or Zenodo needs must be there."""
    file = tmp_path / "CITATION.cff"
    file.write_text("cff-version: 1.2.0\nmessage: cite it\n")
    with pytest.raises(DcilError, match="has no title"):
        citation.read_citation(file)
