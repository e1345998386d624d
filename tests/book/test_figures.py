"""Every figure and table says where it is from: in the notebooks as committed, and in the built site."""

import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
PAGES = sorted(SITE.glob("book/*.html")) if SITE.exists() else []
# Tables that need none: verdicts (each names its rule, n and interval), all runs (what the others link to), parameters.
OWN = ('class="dataframe claims"', 'id="runs"', 'class="rerun"')


@cache
def code_cells(path):
    """Return the code cells of a notebook, each with its outputs' HTML as one text."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return [(cell, "".join("".join(o.get("data", {}).get("text/html", "")) for o in cell["outputs"])) for cell in cells]


def named(path):
    return path.stem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_figures(path):
    """A figure has a caption, a name and alt text, and under it the block with its source, data and CSV file."""
    problems = []
    for cell, html in code_cells(path):
        pictures = [o for o in cell["outputs"] if {"image/svg+xml", "image/png"} & o.get("data", {}).keys()]
        meta = cell["metadata"].get("mystnb", {})
        if not pictures and "figure" not in meta:
            continue
        figure, where = meta.get("figure", {}), f"{path.stem}, cell {cell['id']}"
        if len(pictures) != 1 or cell["outputs"][0] is not pictures[0]:
            problems.append(f"{where}: {len(pictures)} pictures; there must be one, before everything else")
        if len(figure.get("caption", "")) < 30 or len(meta.get("image", {}).get("alt", "")) < 30:
            problems.append(f"{where}: caption or alt text is missing or says nothing")
        if not re.fullmatch(r"fig-[a-z-]+", name := figure.get("name", "")):
            problems.append(f"{where}: its name is {name!r}")
        for part in (
            'class="provenance"',
            "<summary>data</summary>",
            f"make chapter NAME={path.stem}<",
            f'download="{path.stem}-{name.removeprefix("fig-")}.csv"',
        ):
            if part not in html:
                problems.append(f"{where}: no {part} under the figure")
    assert problems == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_tables(path):
    """A table has the block in its cell, or in the next."""
    cells = code_cells(path)
    blocks = [html.count('class="provenance"') for _, html in cells] + [0]
    shown = [
        (i, cell["id"])
        for i, (cell, html) in enumerate(cells)
        if "<table" in html and not any(own in html for own in OWN)
    ]
    assert [f"{path.stem}, cell {name}" for i, name in shown if not blocks[i] + blocks[i + 1]] == []


def test_names_are_given_once():
    """No two CSV files of the book have one name."""
    html = "".join(html for path in NOTEBOOKS for _, html in code_cells(path))
    files = re.findall(r'download="([^"]+)"', html)
    assert len(files) > 50 and sorted(files) == sorted(set(files))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_compared_outputs_name_no_machine(path):
    """What nbval compares does not hold the commit or machine of a computation in the page."""
    compared = {
        cell["id"]: html for cell, html in code_cells(path) if "nbval-check-output" in cell["metadata"].get("tags", [])
    }
    blocks = {name: re.findall(r'<div class="provenance">.*?</dl>', html) for name, html in compared.items()}
    assert [
        name
        for name, found in blocks.items()
        if any("computed in this page" in b and "<dt>commit</dt>" in b for b in found)
    ] == []


@pytest.mark.browser
def test_links_to_runs_lead_to_their_rows():
    """In the site: every linked run has its row, and every row the JSON file of its record."""
    runs = (SITE / "book" / "runs.html").read_text()
    rows = set(re.findall(r'<tr id="([^"]+)"', runs))
    linked = {page.stem: set(re.findall(r'href="runs\.html#([^"]+)"', page.read_text())) for page in PAGES}
    assert rows and linked["06-cifar"] and {name: found - rows for name, found in linked.items() if found - rows} == {}
    files = re.findall(r'href="\.\./(records/[^"]+)"', runs)
    assert len(files) == len(rows) and [file for file in files if not (SITE / file).is_file()] == []
    assert (SITE / "plotly" / "plotly.min.js").is_file()


@pytest.mark.browser
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_every_figure_is_in_the_site(path):
    """The page numbers each figure once, and has its block outside the figure, under it."""
    page = SITE / "book" / f"{path.stem}.html"
    text = page.read_text()
    for cell, _ in code_cells(path):
        if name := cell["metadata"].get("mystnb", {}).get("figure", {}).get("name"):
            assert text.count(f'<figure class="align-default" id="{name}">') == 1, name
            after = text[text.index(f'id="{name}"') :]
            assert after.index("</figure>") < after.index('class="provenance"') < after.index("CSV</a>"), name


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_from_a_figure_to_its_run_in_two_clicks(watched, scheme):
    """Open the source, follow a run: its row stands open, with its charts, its record and the line that trains it."""
    page, problems = watched("book/06-cifar.html", scheme)
    block = page.locator("#fig-quick-grid ~ *, .cell:has(#fig-quick-grid) + .cell").locator(".provenance").first
    block.locator("summary").first.press("Enter")  # a keyboard needs no place that holds still
    run = block.locator("a[href^='runs.html#']").first
    short, name = run.inner_text(), run.get_attribute("title")
    run.press("Enter")
    page.wait_for_url("**/runs.html#*")
    row = page.locator("#runs tr", has=page.locator("details[open]"))
    assert row.count() == 1 and row.locator("summary code").inner_text() == short
    assert row.locator("svg[role=img]").count() >= 2 and "python -m dcil train" in row.locator("pre").inner_text()
    assert row.locator("a[href$='.json']").get_attribute("href") == f"../records/{name}.json"
    assert problems == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_twins_are_drawn_when_they_are_opened(watched, scheme):
    """Only then is the library loaded, and every line of the spec is drawn."""
    page, problems = watched("book/09-rivals.html", scheme)
    loaded = "window.Plotly !== undefined"
    assert not page.evaluate(loaded)
    twin = page.locator("details.interactive").first
    lines = len(json.loads(twin.locator("script").text_content())["data"])
    twin.locator("summary").press("Enter")
    page.wait_for_selector("details.interactive[open] .scatterlayer .trace", timeout=20000)
    assert page.evaluate(loaded) and twin.locator(".scatterlayer .trace").count() == lines > 1
    assert problems == []
