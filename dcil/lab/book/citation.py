"""How to cite the book and the paper: BibTeX and Zenodo's metadata, generated from CITATION.cff so that they agree.

`python -m dcil.lab.book.citation` prints what .zenodo.json must hold.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from dcil.errors import DcilError
from dcil.lab import checkout

REQUIRED = ("cff-version", "message", "title", "version", "license", "abstract", "authors", "references")


def read_citation(path: str | Path) -> dict[str, Any]:
    """Return the content of CITATION.cff; raises `DcilError` naming a missing key that the format or book needs."""
    cff = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    missing = [key for key in REQUIRED if not cff.get(key)]
    if missing:
        raise DcilError(f"{path} has no {missing[0]}")
    return cff


def _person(author: dict[str, Any], family_first: bool = False) -> str:
    if "name" in author:  # a group
        return author["name"]
    parts = author["given-names"], author["family-names"]
    return f"{parts[1]}, {parts[0]}" if family_first else " ".join(parts)


def _arxiv(paper: dict[str, Any]) -> str:
    return next(i["value"] for i in paper["identifiers"] if i["value"].startswith("arXiv:"))


def bibtex(cff: dict[str, Any]) -> str:
    """Return two BibTeX entries: the book (`dcilmeasured`), then the paper it is about (`kim2021dcil`)."""
    paper = cff["references"][0]
    book = {
        "title": f"{{{cff['title']}}}",
        "author": " and ".join(f"{{{_person(a)}}}" for a in cff["authors"]),
        "version": cff["version"],
        "note": "Software and executable book",
    }
    about = {
        "title": f"{{{paper['title']}}}",
        "author": " and ".join(map(_person, paper["authors"])),
        "booktitle": paper["collection-title"],
        "year": paper["year"],
        "pages": f"{paper['start']}--{paper['end']}",
        "doi": paper["doi"],
        "eprint": _arxiv(paper).removeprefix("arXiv:"),
        "archiveprefix": "arXiv",
    }
    return "\n\n".join((_entry("software", "dcilmeasured", book), _entry("inproceedings", "kim2021dcil", about)))


def citation_in_words(cff: dict[str, Any]) -> list[str]:
    """Return citations of the book and of the paper, in words."""
    paper = cff["references"][0]
    where = f"{paper['collection-title']}, {paper['year']}, pages {paper['start']}–{paper['end']}"
    ours = ", ".join(map(_person, cff["authors"]))
    return [
        f"{ours[0].upper()}{ours[1:]}. {cff['title']}. Version {cff['version']}.",
        f"{', '.join(map(_person, paper['authors']))}. {paper['title']}. {where}. doi:{paper['doi']}, {_arxiv(paper)}.",
    ]


def _entry(kind: str, key: str, fields: dict[str, Any]) -> str:
    lines = (f"  {name} = {{{value}}}," for name, value in fields.items())
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def zenodo(cff: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a deposit on Zenodo, as derived from the paper, with the facts of CITATION.cff."""
    paper = cff["references"][0]
    derived = (
        {"relation": "isDerivedFrom", "resource_type": "publication-conferencepaper", "identifier": i}
        for i in (paper["doi"], _arxiv(paper))
    )
    return {
        "upload_type": "software",
        "title": cff["title"],
        "version": cff["version"],
        "description": " ".join(cff["abstract"].split()),
        "license": cff["license"],
        "access_right": "open",
        "creators": [{"name": _person(a, family_first=True)} for a in cff["authors"]],
        "keywords": cff["keywords"],
        "related_identifiers": list(derived),
    }


if __name__ == "__main__":
    text = json.dumps(zenodo(read_citation(checkout.root() / "CITATION.cff")), indent=1, ensure_ascii=False)
    sys.stdout.write(text + "\n")
