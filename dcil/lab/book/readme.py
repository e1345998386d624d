"""The results in README.md: computed from claims and records, and written between its markers by `make readme`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dcil import records
from dcil.config import preset
from dcil.errors import DcilError
from dcil.io.files import write_text_atomically
from dcil.lab import checkout, wording
from dcil.lab.book import front_page
from dcil.lab.book.abstract import abstract
from dcil.lab.evidence import claims, verdict_log
from dcil.lab.evidence.claims import Claim
from dcil.lab.runs import names
from dcil.lab.runs.compared import SEEDS, is_compared, looked_at
from dcil.lab.runs.paired import standing
from dcil.lab.tables.equal_compute import RIVALS, budget_table, half_epochs_in_words, schedule_label
from dcil.lab.templating import markdown_table
from dcil.run_record import Run

# A block begins and ends with a comment that no reader sees.
BLOCK = re.compile(r"(<!-- (?P<name>[\w-]+): written by `make readme` -->\n).*?(<!-- end -->)", re.S)
SPARSITY = 0.9  # at which the claims on rivals are judged
MARGIN = 0.3  # points, as in chapter 9


def verdict_table(known: Sequence[Claim], runs: Sequence[Run]) -> str:
    """Return how many claims have which verdict, and a table with a row for each verdict on a claim of the paper.

    A claim of this book's own, or one with too few runs for a verdict, is counted but has no row.
    """
    by_id = {claim.id: claim for claim in known if not claim.source.startswith("this book")}
    rows = []
    for (name, tier), (verdict, measured) in verdict_log.current_verdicts(known, runs).items():
        if verdict == claims.NO_VERDICT or name not in by_id:
            continue
        chapter = by_id[name].chapter
        linked = f"[{verdict}](book/{chapter}.ipynb)" if chapter else verdict
        rows.append((by_id[name].claim, tier, linked, measured))
    table = markdown_table(("claim of the paper or of its authors' logs", "tier", "verdict", "measured"), rows)
    return f"{front_page.count_in_words(known, runs)}\n\n{table}"


def equal_compute_tables(runs: Sequence[Run]) -> str:
    """Return how DCIL and its rivals end at equal compute: for each tier, at the compute of two dense runs and of one.

    DCIL runs two passes a step, so it has half its rivals' epochs. A rival with fewer than `SEEDS` pairs is left out.
    """
    parts = []
    for tier in claims.TIERS:
        usual = preset(tier)
        setting = {"dataset": "cifar10", "model": usual.model, "scope": "global", "sparsity": SPARSITY}
        mine = looked_at(run for run in runs if is_compared(run, tier, setting))
        dense = [run for run in mine if run.variant == "dense" and run.config.epochs == usual.epochs]
        where = f"Tier **{tier}**, CIFAR-10, {usual.model}, {100 * SPARSITY:g} % sparsity"
        for times in (2, 1) if dense else ():
            told, table = _at_equal_compute(mine, times * dense[0].macs, times * usual.epochs)
            if table:
                alone = half_epochs_in_words(mine, "dcil", usual.epochs) if times == 1 else ""
                parts.append(f"{where}, {told} {alone}".rstrip() + f"\n\n{table}")
    return "\n\n".join(parts) or "Not run."


def _at_equal_compute(runs: Sequence[Run], budget: float, epochs: int) -> tuple[str, str]:
    """Return in words and as a table how DCIL ends against rivals over these epochs; both "" if none has its seeds."""
    baseline = schedule_label("dcil", epochs // 2)
    wanted = [*(schedule_label(name, epochs) for name in RIVALS), baseline]
    table = budget_table(runs, budget, wanted, baseline, MARGIN)
    table = table[table["n"] >= SEEDS] if len(table) else table
    title = names.label(baseline)
    if len(table) < 2 or table["method"].iloc[-1] != title:
        return "", ""
    rivals = table.iloc[:-1].assign(rival=lambda shown: shown["method"].str.rpartition(", ")[0])
    sides = rivals.groupby(f"{title} ends", sort=False)["rival"].agg(lambda mine: wording.listed([*mine]))
    said = "; ".join(f"{standing(ends)} {named}" for ends, named in sides.items())
    table = table.drop(columns=f"seeds to show {MARGIN:g}")
    told = f"DCIL over {epochs // 2} epochs against its rivals over {epochs}. DCIL {said}."
    return told, markdown_table(list(table), table.itertuples(index=False))


def with_blocks(text: str, blocks: dict[str, str]) -> str:
    """Return a text with its blocks replaced; raises `DcilError` unless it has exactly one block of each name.

    >>> print(with_blocks("<!-- sum: written by `make readme` -->\\n3\\n<!-- end -->", {"sum": "4"}))
    <!-- sum: written by `make readme` -->
    <BLANKLINE>
    4
    <BLANKLINE>
    <!-- end -->
    """
    marked = [match["name"] for match in BLOCK.finditer(text)]
    if sorted(marked) != sorted(blocks):
        raise DcilError(
            f"the text has the blocks {marked}, expected {sorted(blocks)}, each once, between the lines "
            "<!-- NAME: written by `make readme` --> and <!-- end -->"
        )
    return BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match['name']]}\n\n{match[3]}", text)


def readme_blocks(known: Sequence[Claim], runs: Sequence[Run]) -> dict[str, str]:
    """Return the content of each block of README.md, by the block's name."""
    return {
        "abstract": abstract(known, runs, verdicts="book/verdicts.ipynb"),
        "verdicts": verdict_table(known, runs),
        "equal-compute": equal_compute_tables(runs),
    }


def main() -> None:
    """Rewrite the blocks of README.md."""
    root = checkout.root()
    blocks = readme_blocks(claims.read_claims(root / "book" / "claims.yml"), records.load_all(root / "records"))
    path = root / "README.md"
    write_text_atomically(path, with_blocks(path.read_text(encoding="utf-8"), blocks))


if __name__ == "__main__":
    main()
