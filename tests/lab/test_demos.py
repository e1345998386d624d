"""What a reader can play with is computed as derived, put into the page unchanged, and readable without scripts."""

import json
import re

import pytest
import torch
from bs4 import BeautifulSoup

from dcil.lab import templating
from dcil.lab.checkout import root
from dcil.lab.demos import scrubber, terms, two_weights
from dcil.lab.page.figures import SIDE_COLOURS
from dcil.lab.runs import sources
from dcil.masks import compute_masks


def output(chapter, cell):
    """Return the HTML that a cell of a committed chapter shows, parsed."""
    cells = json.loads((root() / "book" / f"{chapter}.ipynb").read_text())["cells"]
    (found,) = (c for c in cells if c["id"] == cell)
    return BeautifulSoup("".join(found["outputs"][0]["data"]["text/html"]), "html.parser")


def data(page):
    """Return the data of a demo."""
    return json.loads(page.select_one("script[type='application/json']").string)


# --- two weights


@pytest.mark.parametrize("method", two_weights.METHODS)
def test_two_weights_by_hand(method):
    """The kept weight nears its best value at the learning rate; the pruned one is told −v*, or under DCIL w − v*."""
    path, rate = two_weights.descend(method, rate=0.1, period=2, steps=12), 0.1
    best = two_weights.BEST
    for (_, now), (_, after) in zip(path[:-1].iterrows(), path[1:].iterrows(), strict=True):
        kept, pruned = int(now["kept"]), int(now["pruned"])
        part = now["value"] if method == "dcil" else 0
        assert {kept, pruned} == {1, 2} and now["value"] == now[f"weight_{pruned}"]
        assert now["part"] == now[f"seen_{pruned}"] == part and now[f"seen_{kept}"] == now[f"weight_{kept}"]
        assert now["told"] == pytest.approx(part - best[pruned - 1])
        assert after[f"weight_{pruned}"] == pytest.approx(now["value"] - rate * now["told"])
        slope = now[f"weight_{kept}"] - best[kept - 1]
        assert after[f"weight_{kept}"] == pytest.approx(now[f"weight_{kept}"] - rate * slope)
        assert now["loss"] == pytest.approx(0.5 * (slope**2 + best[pruned - 1] ** 2))
        if after["step"] % 2 == 0:
            larger = 1 if after["weight_1"] > after["weight_2"] else 2
            assert after["kept"] == larger
    assert path["exchanges"].diff().fillna(0).tolist() == (path["kept"].diff().fillna(0) != 0).astype(float).tolist()


def test_the_pair_settles_under_dcil_only():
    """DCIL exchanges once, STE more often, and STE overshoots further the longer a mask rests."""
    for rate in two_weights.RATES:
        last = {}
        for period in two_weights.PERIODS:
            ste, dcil = (two_weights.descend(method, rate, period) for method in ("ste", "dcil"))
            assert dcil["exchanges"].iloc[-1] == 1 < ste["exchanges"].iloc[-1]
            assert dcil["weight_1"].max() <= two_weights.BEST[0] < ste["weight_1"].max()
            last[period] = ste["weight_1"].max()
        assert last[8] > last[1]


def test_the_page_holds_what_dcil_computes():
    """Every number of the committed chapter's sliders is what is computed here, and together they take little room."""
    page = output("02-refined-gradient", "two-weights")
    held = data(page)
    assert (held["rates"], held["periods"]) == (list(two_weights.RATES), list(two_weights.PERIODS))
    assert held["runs"] == two_weights.grid()
    assert len(str(page)) < 170_000


def test_the_first_picture_needs_no_script():
    """The table and the marks are those of the setting that is shown at first."""
    page, at = output("02-refined-gradient", "two-weights"), two_weights.FIRST
    assert page.form.has_attr("hidden") and len(page.select(".demo tbody tr")) == 8
    for method in two_weights.METHODS:
        row = two_weights.descend(method, two_weights.RATES[at["rate"]], two_weights.PERIODS[at["period"]])
        now = row.iloc[at["step"]]
        dot = page.select_one(f"[data-method={method}] [data-draw=here]")
        assert [float(dot["cx"]), float(dot["cy"])] == pytest.approx([now["weight_1"], now["weight_2"]], abs=5e-4)
        cells = {node["data-shown"]: node.text for node in page.select(".demo td [data-shown]")}
        assert cells[f"{method}.loss"] == templating.decimal(now["loss"])


# --- masks at their refreshes


def refreshes(number):
    """Return refreshes of a layer of 2 × 2 kernels of 1 × 2, with masks by the size of random weights."""
    generator, before, found = torch.Generator().manual_seed(0), torch.zeros(2, 2, 1, 2, dtype=torch.bool), []
    for i in range(number):
        after = compute_masks({"w": torch.randn(2, 2, 1, 2, generator=generator)}, sparsity=0.5)["w"]
        found.append(
            {
                "step": 8 * i,
                "sparsity": 0.625,
                "revived": int((after & ~before).sum()),
                "newly pruned": int((before & ~after).sum()),
                "corner": (before, after),
            }
        )
        before = after
    return found


def test_each_refresh_is_told_by_letters():
    """One letter per weight gives the masks before and after."""
    made = refreshes(5)
    for row, refresh in zip(scrubber.frames(made).to_dict("records"), made, strict=True):
        before, after = (mask.flatten().tolist() for mask in refresh["corner"])
        assert [letter in "kn" for letter in row["sides"]] == before
        assert [letter in "kr" for letter in row["sides"]] == after
        assert (row["revived"], row["newly pruned"]) == (row["sides"].count("r"), row["sides"].count("n"))
        assert row["kept"] == sum(after) and row["sparsity"] == 62.5


def test_a_long_run_is_thinned():
    """Of many refreshes sixty are kept, with their own numbers."""
    rows = scrubber.frames(refreshes(200))
    assert len(rows) == scrubber.MOST and rows["refresh"].iloc[[0, -1]].tolist() == [1, 200]
    assert (rows["step"] == 8 * (rows["refresh"] - 1)).all() and rows["refresh"].is_unique


def test_every_side_has_its_shape():
    """Sides differ in shape, not in colour alone."""
    page = BeautifulSoup(scrubber.scrubber_html(refreshes(3), sources.exact("a test"), "01-x#masks"), "html.parser")
    drawn = [use["href"].removeprefix("#mask-") for use in page.select("svg.mask use")]
    assert "".join(drawn) == data(page)[1]["sides"]
    shapes = {page.find(id=f"mask-{letter}").decode_contents() for letter in scrubber.SIDES}
    assert len({re.sub("#[0-9A-F]{6}", "", shape) for shape in shapes}) == len(scrubber.SIDES)
    assert list(scrubber.SIDES.values()) == list(SIDE_COLOURS)


def test_masks_have_a_size_without_the_site():
    """In JupyterLab, which lacks the site's style, a drawing without a size would fill the screen."""
    page = BeautifulSoup(scrubber.scrubber_html(refreshes(3), sources.exact("a test"), "01-x#masks"), "html.parser")
    assert {drawing["width"] for drawing in page.select("svg")} == {"0", "18", "440"}


def test_the_chapter_shows_its_own_refreshes():
    """In the committed chapter, every mask begins as the one before it ended."""
    held = data(output("01-why-prune-dynamically", "scrubber"))
    assert len(held) > 10 and len(held[0]["sides"]) == 8 * 8 * 9
    for one, other in zip(held, held[1:], strict=False):
        assert [letter in "kr" for letter in one["sides"]] == [letter in "kn" for letter in other["sides"]]
        assert other["kept"] == sum(letter in "kr" for letter in other["sides"])


# --- terms of an equation


def test_a_term_says_what_it_does():
    """Formulas between dollars are set as formulas, a value has its words, and no text becomes markup."""
    measured = terms.Term("a", "one", "Of $x_1$: less <b>than</b> $y$.", value=-0.5)
    right = [measured, terms.Term("b", "two", "No value.", sign="−")]
    page = BeautifulSoup(terms.terms_html("A & B", terms.Term("c", "all", "The sum."), right, "Here:"), "html.parser")
    assert page.div["aria-label"] == "A & B, term by term"
    assert [sign.text for sign in page.select(".sign")] == ["=", "−"]
    first, second, _ = (" ".join(dd.text.split()) for dd in page.select("dd"))
    assert first == "All. The sum." and second == r"One. Of \(x_1\): less <b>than</b> \(y\). Here: −0.500."


def test_the_terms_of_the_loss_add_up():
    """In the committed chapter the four terms sum to the collective loss beside them."""
    total, *parts = [float(b["data-value"]) for b in output("03-dual-path-training", "terms").select("[data-value]")]
    assert len(parts) == 4 and sum(parts) == pytest.approx(total, rel=1e-5)
