"""Tables that sort, and forms that write a command: the command is run as a reader would."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv" / "bin"

pytestmark = pytest.mark.browser


# --- tables that sort


def test_a_table_sorts(watched):
    """A heading sorts by number, again the other way, by keyboard too, and says which it did."""
    page, _ = watched("book/runs.html")
    column = page.locator("#runs thead th").evaluate_all("all => all.findIndex(h => /sparsity/.test(h.textContent))")
    heading = page.locator("#runs thead th").nth(column)
    heading.locator("button").focus()
    for direction, down in (("ascending", False), ("descending", True)):
        page.keyboard.press("Enter")
        shown = [float(v) for v in page.locator(f"#runs tbody td:nth-child({column + 1})").all_inner_texts()]
        assert heading.get_attribute("aria-sort") == direction
        assert len(set(shown)) > 1 and shown == sorted(shown, reverse=down)


def test_words_among_numbers_come_last(watched):
    """What has not been run stays below the numbers, whichever way they are sorted."""
    page, _ = watched("book/runs.html")
    rows = "".join(f"<tr><td>{v}</td></tr>" for v in ("not run", "9.5 ± 0.1", "1,234", "−2"))
    table = f"<table class='dataframe'><thead><tr><th>points</th></tr></thead><tbody>{rows}</tbody></table>"
    page.evaluate("html => document.body.innerHTML = html", table)
    page.evaluate((ROOT / "book" / "_static" / "tables.js").read_text())
    for expected in (["−2", "9.5 ± 0.1", "1,234", "not run"], ["1,234", "9.5 ± 0.1", "−2", "not run"]):
        page.locator("th button").click()
        assert page.locator("td").all_inner_texts() == expected


# --- forms that write a command


@pytest.fixture
def opened(watched):
    """Open a page and the box at its end that holds the form."""

    def visit(name, **how):
        page, _ = watched(name, **how)
        page.locator("details.rerun-box > summary").click()
        return page

    return visit


def written(page, tool):
    """The command that the form of a page shows."""
    return page.locator(f"form.rerun [data-line={tool}]").inner_text()


def fill(page, **values):
    """Fill in the form of a page: choose, or type."""
    for name, value in values.items():
        field = page.locator(f"form.rerun [name={name}]")
        chosen = field.evaluate("f => f.tagName") == "SELECT"
        field.select_option(value) if chosen else field.fill(value)


def test_a_form_writes_only_what_was_changed(opened):
    """It writes what differs from the defaults, names a wrong value and leaves it out, and can be reset."""
    page = opened("book/03-dual-path-training.html")
    first = written(page, "make")
    assert first == "make chapter NAME=03-dual-path-training"
    fill(page, preset="quick", sparsity="0.95", data_dir="a folder's")
    assert shlex.split(written(page, "papermill"))[3:] == [
        *("-p", "preset", "quick"),
        *("-p", "sparsity", "0.95"),
        *("-p", "data_dir", "a folder's"),
    ]
    fill(page, sparsity="1.5")
    assert "sparsity" in page.locator("form.rerun output").inner_text() and "1.5" not in written(page, "make")
    page.locator("form.rerun button[type=reset]").click()
    page.wait_for_function("first => document.querySelector('[data-line=make]').textContent === first", arg=first)


def test_without_a_script_the_table_and_the_line_stay(opened):
    """Values and defaults are text, no input is shown, and there is a line to copy."""
    page = opened("book/03-dual-path-training.html", javascript=False)
    assert page.locator("form.rerun :is(input, select, button):visible").count() == 0
    assert page.locator("form.rerun tbody td code:visible").count() >= 12
    assert "-p preset smoke" in written(page, "papermill")


def test_the_written_command_runs_the_chapter(opened, tmp_path):
    """Copied into a shell, papermill's line executes the chapter with the chosen value."""
    page = opened("book/runs.html")
    fill(page, dataset="digits")
    (tmp_path / "book").symlink_to(ROOT / "book")
    env = os.environ | {"DCIL_ROOT": str(ROOT), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(written(page, "papermill"), shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    injected = next(c for c in cells if "injected-parameters" in c["metadata"].get("tags", []))
    assert 'dataset = "digits"' in "".join(injected["source"])


def test_lists_and_quotes_survive_the_shell(opened, tmp_path, would_run):
    """A list, a number and text with blanks and quotes reach a chapter through papermill and through make alike."""
    page = opened("book/05-which-ingredient-matters.html")
    fill(page, variants='["dcil", "ste"]', epochs="2", data_dir="it's $HOME")
    code, kernel = nbformat.v4.new_code_cell, {"name": "python3", "display_name": "Python 3", "language": "python"}
    given = code("variants = []  # a\nepochs = None  # b\ndata_dir = None  # c", metadata={"tags": ["parameters"]})
    cells = [given, code("import json\nprint(json.dumps([variants, epochs, data_dir]))")]
    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").touch()
    small = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(small, tmp_path / "book" / "05-which-ingredient-matters.ipynb")
    command = would_run(written(page, "make")).replace(" .venv/bin", f" {BIN}")
    env = os.environ | {"DCIL_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": f"{BIN}:{os.environ['PATH']}"}
    lines = {"out.ipynb": written(page, "papermill"), "_build/chapters/05-which-ingredient-matters.ipynb": command}
    for out, line in lines.items():
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        printed = json.loads((tmp_path / out).read_text())["cells"][-1]["outputs"][0]["text"]
        assert json.loads("".join(printed)) == [["dcil", "ste"], 2, "it's $HOME"]
