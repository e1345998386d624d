"""What a reader can play with, in a browser: by keyboard, from a server, from a disk, and without scripts."""

import json

import pytest

from dcil.lab import templating
from dcil.lab.demos import two_weights
from tests.book.test_browser import choose, unfit, violations

CHAPTER = {"masks": "book/01-why-prune-dynamically.html", "two": "book/02-refined-gradient.html",
           "terms": "book/03-dual-path-training.html"}  # fmt: skip
SCHEMES = pytest.mark.parametrize("scheme", ["http", "file"])

pytestmark = pytest.mark.browser


def press(page, selector, *keys):
    """Reach a control and press keys there."""
    page.locator(selector).focus()
    for key in keys:
        page.keyboard.press(key)


def shown(page, piece):
    """Return what a demo shows, by name."""
    nodes = page.locator(f"{piece} [data-shown]")
    return dict(nodes.evaluate_all("all => all.map(n => [n.dataset.shown, n.textContent])"))


def accessible(page, piece):
    """Assert that axe finds nothing in a demo as it is now, and that the page fits, in both themes and widths."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for theme in ("light", "dark"):
            choose(page, theme)
            assert (violations(page, within=piece), unfit(page)) == ([], 0), f"{width} px, {theme}"


# --- two weights


@SCHEMES
@pytest.mark.parametrize("rate, period, step", [(0, 0, 60), (1, 3, 8), (2, 2, 36), (3, 3, 1)])
def test_sliders_show_what_dcil_computes(watched, scheme, rate, period, step):
    """Set by keyboard, every number and mark is the one that dcil computes for that setting."""
    page, problems = watched(CHAPTER["two"], scheme)
    for name, value in (("rate", rate), ("period", period), ("step", step)):
        press(page, f"#two-weights-{name}", "Home", *["ArrowRight"] * value)
    texts = shown(page, ".two-weights")
    assert texts.pop("step") == str(step)
    for method in two_weights.METHODS:
        now = two_weights.descend(method, two_weights.RATES[rate], two_weights.PERIODS[period]).iloc[step]
        dot = page.locator(f"[data-method={method}] [data-draw=here]")
        at = [float(dot.get_attribute(key)) for key in ("cx", "cy")]
        assert at == pytest.approx([now["weight_1"], now["weight_2"]], abs=5e-4)
        for name in ("weight_1", "weight_2", "value", "part", "told", "loss"):
            assert texts.pop(f"{method}.{name}") == templating.decimal(now[name]), name
        for name in ("kept", "exchanges"):
            assert texts.pop(f"{method}.{name}") == f"{now[name]:.0f}", name
    assert (texts, problems) == ({}, [])


def test_a_slider_says_its_value(watched):
    """A screen reader hears the learning rate and the period, not their places in a list."""
    page, _ = watched(CHAPTER["two"])
    press(page, "#two-weights-rate", "Home")
    press(page, "#two-weights-period", "Home")
    words = [page.locator(f"#two-weights-{name}").get_attribute("aria-valuetext") for name in ("rate", "period")]
    assert words == ["0.025", "1 step"]
    accessible(page, ".two-weights")


def test_two_weights_without_a_script(watched):
    """No slider; the picture, the sentence and the table of the first setting stay."""
    page, _ = watched(CHAPTER["two"], javascript=False)
    assert page.locator(".two-weights input:visible").count() == 0
    assert page.locator(".two-weights figure svg:visible").count() == 2
    first = two_weights.descend("ste", 0.1, 4)["loss"][two_weights.FIRST["step"]]
    assert shown(page, ".two-weights")["ste.loss"] == templating.decimal(first)


# --- masks at their refreshes


@SCHEMES
def test_the_scrubber_goes_through_the_refreshes(watched, scheme):
    """By keyboard to the first, the next and the last: the text and the shapes are those of that refresh."""
    page, problems = watched(CHAPTER["masks"], scheme)
    frames = json.loads(page.locator(".scrubber script").text_content())
    for keys, frame in ((["Home"], frames[0]), (["ArrowRight"], frames[1]), (["End"], frames[-1])):
        press(page, "#scrubber-refresh", *keys)
        texts = shown(page, ".scrubber")
        assert texts.pop("sparsity") == f"{frame['sparsity']:.1f}"
        assert texts == {name: str(frame[name]) for name in texts} and len(texts) == 5
        drawn = page.locator("svg.mask use").evaluate_all("all => all.map(u => u.getAttribute('href').at(-1)).join('')")
        assert drawn == frame["sides"]
    assert problems == []
    accessible(page, ".scrubber")


def test_the_scrubber_without_a_script(watched):
    """No slider; one mask is drawn, and its text stays."""
    page, _ = watched(CHAPTER["masks"], javascript=False)
    assert page.locator(".scrubber input:visible").count() == 0
    assert page.locator(".scrubber svg.mask:visible").count() == 1
    assert "of all weights are pruned" in page.locator(".scrubber .said").inner_text()


# --- terms of an equation


@SCHEMES
def test_terms_explain_themselves(watched, scheme):
    """Focus and the pointer each show the words of one term, which a screen reader hears too."""
    page, problems = watched(CHAPTER["terms"], scheme)
    loss = page.locator(".terms").first
    buttons = loss.locator("button")
    assert buttons.count() == 5 and loss.locator("dd:visible").count() == 1
    buttons.first.focus()
    for i, word in enumerate(("backward", "deployed", "pruned weights", "here the dense pass", "here the sparse pass")):
        words = loss.locator("dd:visible")
        assert words.count() == 1 and word in words.inner_text()
        assert words.inner_text().lower().startswith(buttons.nth(i).get_attribute("aria-label"))
        assert buttons.nth(i).get_attribute("aria-describedby") == words.get_attribute("id")
        page.keyboard.press("Tab")
    buttons.nth(1).hover()
    assert "deployed" in loss.locator("dd:visible").inner_text()
    assert page.locator(".terms button:not(:has(mjx-container))").count() == 0
    assert problems == []
    accessible(page, ".terms")


def test_terms_without_a_script(watched):
    """All terms and all their words are there, as a list."""
    page, _ = watched(CHAPTER["terms"], javascript=False)
    assert page.locator(".terms dd:visible").count() == page.locator(".terms dt:visible").count() == 8
    assert page.locator(".terms button").count() == 0


# --- words of the glossary

WORD = "article a[href$='glossary.html#term-refresh']"


@SCHEMES
def test_a_word_opens_in_place(watched, scheme):
    """Enter shows the glossary's own definition, Escape closes it and the word has the focus again."""
    page, problems = watched("book/glossary.html", scheme)
    meaning = page.locator("dt#term-refresh + dd").inner_text()
    page, problems = watched(CHAPTER["two"], scheme)
    address = page.url
    press(page, f"{WORD} >> nth=0", "Enter")
    opened = page.locator(".glossary-word")
    opened.wait_for(state="visible")
    assert "".join(meaning.split()) in "".join(opened.inner_text().split())
    assert opened.evaluate("box => document.activeElement === box")
    page.keyboard.press("Escape")
    assert not opened.is_visible() and page.url == address
    assert page.evaluate("document.activeElement.getAttribute('href')").endswith("#term-refresh")
    assert problems == []


def test_a_click_opens_and_closes_a_word(watched):
    """A click elsewhere closes; a word inside a definition opens its own; the whole glossary is one link away."""
    page, problems = watched(CHAPTER["two"])
    page.locator("article a[href$='glossary.html#term-pruned']").first.click()
    opened = page.locator(".glossary-word")
    opened.wait_for(state="visible")
    page.mouse.move(2, 400)  # the theme's colour of a link under the pointer is not ours
    accessible(page, ".glossary-word")
    opened.locator("a[href$='#term-sparse-pass']").click()
    page.wait_for_function("document.querySelector('.glossary-word b').textContent === 'sparse pass'")
    page.mouse.click(2, 2)
    assert not opened.is_visible()
    page.locator(WORD).first.click()
    opened.locator("a.whole").click()
    page.wait_for_url("**/glossary.html#term-refresh")
    assert problems == []


def test_every_word_of_the_glossary_can_be_opened(watched):
    """The script that a page loads has each word that the glossary defines."""
    page, _ = watched("book/glossary.html")
    anchors = page.locator("dl.glossary > dt[id]").evaluate_all("all => all.map(n => n.id)")
    page.add_script_tag(url="../_static/glossary-words.js")
    assert sorted(page.evaluate("Object.keys(window.glossaryWords)")) == sorted(anchors) and len(anchors) > 40


def test_words_without_a_script_are_links(watched):
    """A click leads to the word in the glossary."""
    page, _ = watched(CHAPTER["two"], javascript=False)
    page.locator(WORD).first.click()
    page.wait_for_url("**/glossary.html#term-refresh")
