"""Prose holds no result by hand: every measured number of a page comes from a record, a claim or a cell.

A number in prose is a quantity: a decimal fraction, or a count of %, points, ×, time, memory, epochs, seeds, runs and
the like, in figures or, for times, in words. Code, formulas, citations and links are not prose, nor are the tables that
`dcil.lab.book.readme` writes into README.md and its test compares with the records. `prose.yml` allows what
has another source: settings, which are evaluated and compared with the code, arithmetic, which is done again, and facts
from elsewhere, each with a reason. An entry that no page needs any more fails.
"""

import inspect
import json
import math
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import dcil
from dcil.lab.book import readme
from dcil.lab.demos import toy
from dcil.lab.runs import paired
from dcil.lab.tables import imagenet

BOOK = Path(__file__).parents[2] / "book"
PAGES = ["../README.md", *sorted(path.name for path in [*BOOK.glob("*.ipynb"), *BOOK.glob("*.md")])]
ALLOWED = yaml.safe_load((Path(__file__).parent / "prose.yml").read_text())
# What the expressions of prose.yml may use.
CODE = {"dcil": dcil, "imagenet": imagenet, "pairs": paired, "toy": toy, "math": math,
        "default": lambda function, name: inspect.signature(function).parameters[name].default,
        "pyproject": tomllib.loads((BOOK.parent / "pyproject.toml").read_text())}  # fmt: skip

NOT_PROSE = re.compile(
    r"^(`{3,}).*?^\1|\$\$.*?\$\$|\$[^$\n]+(?:\n[^$\n]+)?\$"  # code blocks, formulas
    r"|`[^`]*`|\{[\w:-]+\}`[^`]*`|\]\([^)]*\)|https?://\S+|^:\w+:.*?$|<!--.*?-->|arXiv[ :]\S+",  # code, roles, links
    re.M | re.S,
)
FIGURE = r"(?:\d[\d,]*(?:\.\d+)?(?:e-?\d+)?)"
WORD = r"(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|half|most of)"
TIME = r"(?:second|minute|hour|day|week)s?"
UNIT = (
    rf"(?:%|points?\b|×(?!\d)|times\b|{TIME}\b|ms\b|s\b|min\b|h\b|[KMGT]i?B\b|bytes\b|epochs?\b|seeds?\b|runs?\b|records?\b"
    r"|steps\b|images\b|weights\b|MACs\b|parameters\b|digits\b|cores?\b|fold\b|pixels\b|classes\b|GPUs?\b)"
)
QUANTITY = re.compile(
    rf"(?<![\w.-]){FIGURE}[ \u00a0]*{UNIT}|(?<![\w.-])\d+\.\d+|\b(?!a second\b){WORD}(?: an?)?(?: of an?)?\s{TIME}\b",
    re.I,
)


def prose(name):
    """Return the Markdown of a page, with its figures' captions and descriptions, without what is not prose."""
    path = BOOK / name
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        figures = (cell["metadata"].get("mystnb", {}) for cell in cells)
        said = [(f.get("figure", {}).get("caption", ""), f.get("image", {}).get("alt", "")) for f in figures]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        text = "\n\n".join([text, *(line for pair in said for line in pair)])
    return NOT_PROSE.sub(" ", readme.BLOCK.sub(" ", text))


def quantities(text):
    """Return the quantities in a text, each as it is written, with line breaks as spaces."""
    return [" ".join(match.group().split()) for match in QUANTITY.finditer(text)]


@pytest.mark.parametrize("name", PAGES)
def test_no_result_is_written_by_hand(name):
    """A page states no quantity that is not allowed."""
    allowed = {entry["says"] for entry in ALLOWED}
    found = [q for q in quantities(prose(name)) if q not in allowed]
    assert found == [], "compute it, or give it a source in prose.yml"


@pytest.mark.parametrize("entry", ALLOWED, ids=lambda entry: entry["says"])
def test_what_is_allowed_is_true_and_needed(entry):
    """A setting equals the code's, arithmetic is correct, all else has a reason, and some page says it."""
    assert set(entry) in ({"says", "is"}, {"says", "because"})
    if "is" in entry:
        number = float(re.match(FIGURE, entry["says"]).group().replace(",", ""))
        assert number == pytest.approx(eval(entry["is"], CODE.copy()), rel=1e-9)
    assert any(entry["says"] in quantities(prose(name)) for name in PAGES), "no page says it any more: take it out"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It ends 1.35 points ahead.", ["1.35 points"]),
        ("It keeps 12 % and is 3 × as fast, in about ten\nminutes.", ["12 %", "3 ×", "ten minutes"]),
        ("Most of an hour on one core, half an hour on two.", ["Most of an hour", "half an hour"]),
        ("The loss is $0.5 \\cdot x$, see {eq}`eq-1.5`, `lr=0.1`, [chapter](a1.5.html) and https://x.org/1.5.", []),
        ("```python\nx = 0.5\n```\nA 3×3 kernel, a second pass, 2 cells, the CIFAR-10 runs.", []),
        ("It took 5,005 steps and 1e-9 points.", ["5,005 steps", "1e-9 points"]),
    ],
)
def test_what_counts_as_a_quantity(text, found):
    """Decimals, shares and times are; code, formulas, links, kernel sizes and ordinals are not."""
    assert quantities(NOT_PROSE.sub(" ", text)) == found
