"""The book on one page and on ten slides, computed from claims and records like the front page.

As a Sphinx extension it writes `summary.html` and `slides.html` into the site, with a PDF of each if there is Chromium.
`python -m dcil.lab.book.summary _build/html` does so for a site already built.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dcil
from dcil import records
from dcil.config import preset
from dcil.lab import checkout
from dcil.lab.book import citation, front_page
from dcil.lab.book.abstract import abstract
from dcil.lab.evidence import claims
from dcil.lab.evidence.claims import Claim
from dcil.lab.page.paper import count_pages, print_pdf
from dcil.lab.runs.compared import SEEDS
from dcil.lab.runs.names import label
from dcil.lab.tables.equal_compute import decided_ways
from dcil.lab.templating import render
from dcil.run_record import Run

PAGES = {"summary": 1, "slides": 10}  # the most sheets that each may fill in print
SCALES = (1, 0.95, 0.9, 0.85, 0.8)  # of the text in print; the first that fits is taken
INGREDIENTS = "05-which-ingredient-matters"


@dataclass(frozen=True)
class Difference:
    """A decided claim about a difference in points, to be drawn: what minus what, mean and 95 % interval, verdict.

    `claim` is the claim's id.
    """

    name: str
    mean: float
    low: float
    high: float
    seeds: int
    verdict: str
    claim: str = ""


@dataclass(frozen=True)
class Axis:
    """A drawing's axis in points of accuracy; positions are in percent of its width. Zero is always on it."""

    low: float
    high: float

    def at(self, points: float) -> float:
        """Return the position of a difference on the axis.

        >>> Axis(-1, 3).at(0)
        25.0
        """
        return 100 * (points - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[int]:
        """Whole points on the axis, about seven at most."""
        step = math.ceil((self.high - self.low) / 7)
        return [tick for tick in range(math.ceil(self.low), math.floor(self.high) + 1) if tick % step == 0]


def axis(shown: Sequence[Difference]) -> Axis:
    """Return an axis that contains zero and all intervals."""
    ends = [0.0, *(end for d in shown for end in (d.low, d.high))]
    return Axis(min(ends) - 0.2, max(ends) + 0.2)


def decided_differences(known: Sequence[Claim], runs: Sequence[Run]) -> list[Difference]:
    """Return the decided claims that compare two variants' accuracies, each at the highest tier that has a verdict."""
    result = []
    for claim in known:
        rule, best = claim.rule, claims.at_highest_tier(claims.findings(claim, runs))
        if best is None or not isinstance(rule, claims.PairOfAccuracies):
            continue
        evidence = claim.evidence[best.tier]
        b = label(rule.b)
        if rule.a_epochs:  # at equal compute it is always DCIL, perhaps with a setting
            setting = "".join(f", {words}," for words in label(rule.a).split(", ")[1:])
            name = f"{b}: {rule.a_epochs}{setting} against {evidence['epochs']}"
        else:
            a = label(rule.a) + (f"'s {rule.a_pass} pass" if rule.a_pass else "")
            name = f"{a} minus {b}, {100 * evidence['sparsity']:g}\N{NO-BREAK SPACE}%"
        result.append(Difference(name, best.mean, best.low, best.high, len(best.effects), best.verdict, claim.id))
    return result


def summary_values(known: Sequence[Claim], runs: Sequence[Run]) -> dict[str, Any]:
    """Return the templates' values: the abstract, claims grouped by verdict, differences to draw, how to cite."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    cff = citation.read_citation(checkout.root() / "CITATION.cff")
    equal = [claim for claim in known if claim.rule.a_epochs]
    others = [claim for claim in known if claim not in equal]
    holds, still_open, fails, rest = front_page.claim_groups(others, runs)
    text = abstract(known, runs, verdicts="book/verdicts.html")
    at_equal_compute = decided_differences(equal, runs)
    ways = decided_ways([claim.id for claim in equal], {d.claim for d in at_equal_compute})
    ingredients = decided_differences([claim for claim in others if claim.chapter == INGREDIENTS], runs)
    return {
        "abstract": Markup(MarkdownIt("js-default").render(text)),
        "count": front_page.count_in_words(known, runs),
        "holds": holds,
        "open": still_open,
        "fails": fails,
        "unknown": rest,
        "at_equal_compute": at_equal_compute,
        # One page has room to draw one way; the differences of the others are text.
        "fairest": [d for d in at_equal_compute if not ways or d.claim.startswith(f"{ways[0]}-")],
        "ingredients": ingredients,
        "axis": axis,
        "seeds": SEEDS,
        "quick": preset("quick"),
        "paper": preset("paper"),
        "records": len(runs),
        "version": dcil.__version__,
        "bibtex": citation.bibtex(cff),
        "cited": citation.citation_in_words(cff),
    }


def write_summary(folder: Path) -> list[str]:
    """Write the summary and the slides into the site's folder, and print them; return the reasons for missing PDFs."""
    root = checkout.root()
    values = summary_values(claims.read_claims(root / "book" / "claims.yml"), records.load_all(root / "records"))
    reasons = {name: _write_page(folder / f"{name}.html", most, values) for name, most in PAGES.items()}
    return [f"{name}.pdf is left out: {reason}" for name, reason in reasons.items() if reason]


def _write_page(page: Path, most: int, values: dict[str, Any]) -> str:
    """Write a page and its PDF, if possible on at most `most` sheets; return why there is no PDF, else ""."""
    pdf = page.with_suffix(".pdf")
    pdf.unlink(missing_ok=True)  # one from an earlier build may say something else
    for scale in SCALES:
        page.write_text(render(page.stem, scale=scale, pdf=pdf.name, **values), encoding="utf-8")
        if reason := print_pdf(page, pdf):
            page.write_text(render(page.stem, scale=1, pdf="", **values), encoding="utf-8")
            return reason
        if count_pages(pdf) <= most:
            break
    return ""


def on_finished(app: Any, error: Exception | None) -> None:
    """Write the pages once the site is built; a missing PDF is logged and is not an error."""
    from sphinx.util import logging as sphinx_logging

    if error or app.builder.format != "html":
        return
    for reason in write_summary(Path(app.outdir)):
        sphinx_logging.getLogger(__name__).info(reason)


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("build-finished", on_finished)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main() -> None:
    """Write the pages into the folder of a built site, given on the command line."""
    folder = Path(sys.argv[1])
    for reason in write_summary(folder):
        logging.warning(reason)
    for path in sorted(path for name in PAGES for path in folder.glob(f"{name}.*")):
        print(path)


if __name__ == "__main__":
    main()
