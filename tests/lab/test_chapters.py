"""Chapters are found, described, checked and executed; nothing broken is published."""

import json
import os
import re

import matplotlib.pyplot as plt
import nbformat
import pytest

from dcil.cli.main import main
from dcil.errors import DcilError
from dcil.lab import checkout
from dcil.lab.book import chapters
from dcil.lab.page import figures, rerun_form, twins
from dcil.lab.runs import sources, stability


def write(path, source, parameters="size = 3  # a whole number\nname = None  # None: none"):
    """A chapter with a parameter cell and one more."""
    code = nbformat.v4.new_code_cell
    cells = [code(parameters, metadata={"tags": ["parameters"]}), code(source)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def test_find_by_number_name_and_path():
    """ "03", "3", the whole name and a path lead to the same notebook; a misspelt name suggests one."""
    path = chapters.find_chapter("03")
    assert chapters.find_chapter("10").stem.startswith("10-")
    assert path == chapters.find_chapter("3") == chapters.find_chapter(path.stem) == chapters.find_chapter(path)
    with pytest.raises(DcilError, match="did you mean '03-dual-path-training'"):
        chapters.find_chapter("03-dual-path-trainin")
    for name in ("0", "003", "dual"):
        with pytest.raises(DcilError, match="unknown chapter"):
            chapters.find_chapter(name)


def test_root_from_elsewhere(tmp_path, monkeypatch):
    """The checkout is found from a folder outside it, and DCIL_ROOT overrides."""
    expected = checkout.root()
    monkeypatch.chdir(tmp_path)
    assert checkout.root() == expected
    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").touch()
    monkeypatch.setenv("DCIL_ROOT", str(tmp_path))
    assert checkout.root() == tmp_path.resolve()


def test_parameters_carry_default_and_meaning(tmp_path):
    """The table of parameters comes from the cell itself."""
    found = chapters.parameters(write(tmp_path / "a.ipynb", "1"))
    assert [(p.name, p.default, p.meaning) for p in found] == [
        ("size", "3", "a whole number"),
        ("name", "None", "None: none"),
    ]


def test_unknown_parameter_is_an_error(tmp_path):
    """Where papermill would only warn, nothing is executed, and the nearest name is suggested."""
    notebook = write(tmp_path / "a.ipynb", "1")
    with pytest.raises(DcilError, match="unknown parameter of a 'sise': did you mean 'size'"):
        chapters.execute(notebook, tmp_path / "out.ipynb", {"sise": 4}, progress=False)
    assert not (tmp_path / "out.ipynb").exists()


def test_a_value_that_a_parameter_does_not_take_is_an_error(tmp_path):
    """Nothing is executed: a tier that does not exist would look like one without records."""
    notebook = write(tmp_path / "a.ipynb", "1", 'tier = "quick"  # quick | paper: which records are shown')
    with pytest.raises(DcilError, match=r"tier is 'papre'; a takes: quick \| paper: which records are shown"):
        chapters.execute(notebook, tmp_path / "out.ipynb", {"tier": "papre"}, progress=False)


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("methods", ["ste", "dclil"], "unknown methods of 09-rivals 'dclil': did you mean 'dcil'"),
        ("methods", '["ste"]', r"methods is '\[\"ste\"\]'; .* A list is expected, .* such as \[\"ste\", .* with -y"),
        ("methods", [], r"methods is \[\]; .* A list is expected"),
        ("methods", [1], r"methods is \[1\]; .* A list is expected"),
        ("runs_dir", 2024, "runs_dir is 2024; 09-rivals takes: where live runs are kept.* such as ./2024"),
        ("sparsity", "0.9", "sparsity is '0.9'; 09-rivals takes: 0.9"),
    ],
)
def test_what_is_refused_is_refused_in_words(name, value, said):
    """A misspelt entry of a list is answered with the nearest name, and what is no list with an example of one."""
    with pytest.raises(DcilError, match=said):
        chapters.check_parameters(chapters.find_chapter("09"), {name: value})


def test_a_misspelt_method_is_answered_with_the_nearest():
    """ "A name of dcil.methods" alone would leave the reader to look them up."""
    with pytest.raises(DcilError, match="unknown method of 06-cifar 'dclil': did you mean 'dcil'"):
        chapters.check_parameters(chapters.find_chapter("06"), {"method": "dclil"})


def test_begin_refuses_a_name_that_is_no_parameter():
    """Under plain papermill the chapter itself finds the unknown name."""
    names = {"preset": "smoke", "sparsty": 0.5, "In": ["", "", ""]}
    with pytest.raises(DcilError, match="did you mean 'sparsity'"):
        chapters.begin("03", names)


def test_other_records_than_the_text_was_written_for_are_announced(monkeypatch):
    """Sentences that no cell computes speak of the records at the defaults; other live runs change nothing in them."""
    told = []
    monkeypatch.setattr("IPython.display.display", lambda note: told.append(note.data))
    chapters.begin("04", {"tier": "quick", "sparsity": 0.95, "preset": "smoke", "epochs": 1, "seed": 7, "In": [""]})
    assert not told
    chapters.begin("04", {"tier": "paper", "sparsity": 0.9, "preset": "smoke", "epochs": None, "In": [""]})
    assert "executed with tier paper and sparsity 0.9." in told[0]
    assert "written for tier quick and sparsity 0.95." in told[0]


def test_what_a_chapter_imports_is_no_parameter():
    """Modules, functions, classes and constants beside the parameters are not taken for some."""
    imported = {"chapters": chapters, "write": write, "DcilError": DcilError, "METHODS": ("ste", "dcil")}
    chapters.begin("03", {"preset": "smoke", "In": ["", "", ""], "Out": {}, "exit": object()} | imported)


def test_the_box_at_the_end_has_the_values_of_this_run(monkeypatch):
    """It is closed; its form shows what was passed beside the default, for declared parameters only."""
    monkeypatch.setattr(rerun_form, "forms", {})
    with pytest.raises(DcilError, match="has not begun"):
        chapters.rerun_box("03-dual-path-training")
    chapters.begin("03", {"preset": "smoke", "sparsity": 0.95, "In": [""]})
    text = chapters.rerun_box("03-dual-path-training").data
    assert text.startswith('<details class="rerun-box"><summary>')
    assert re.search(r"<code>0\.95</code>.*?<td><code>0\.9</code></td>", text)
    assert "papermill book/03-dual-path-training.ipynb" in text and text.count('<th scope="row">') == 2


def test_code_that_ran_is_shown_where_it_is_taught(tmp_path):
    """A cell shows the source of functions that a cell before it defined."""
    taught = "from dcil.lab.book import chapters\n\n\ndef twice(n):\n    return 2 * n"
    notebook = nbformat.read(write(tmp_path / "a.ipynb", taught), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("chapters.code(twice)"))
    nbformat.write(notebook, tmp_path / "a.ipynb")
    out = chapters.execute(tmp_path / "a.ipynb", tmp_path / "out.ipynb", progress=False)
    shown = nbformat.read(out, as_version=4).cells[-1].outputs[0].data["text/markdown"]
    assert shown == "```python\ndef twice(n):\n    return 2 * n\n```"


def test_execute_passes_parameters_and_leaves_no_clock(tmp_path):
    """The result holds the output for the given value, and neither times nor paths of the machine."""
    notebook = write(tmp_path / "a.ipynb", "print(size * 2)")
    out = chapters.execute(notebook, tmp_path / "out.ipynb", {"size": 21}, progress=False)
    done = nbformat.read(out, as_version=4)
    assert done.cells[-1].outputs[0].text == "42\n"
    assert all(cell.execution_count for cell in done.cells)
    assert "papermill" not in out.read_text() and str(tmp_path) not in out.read_text()


@pytest.mark.parametrize(
    "code, said",
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import os; os.kill(os.getpid(), 9)", "a.ipynb: Kernel died. The process that .* memory.* was not written"),
    ],
    ids=["a failing cell", "a kernel that dies"],
)
def test_what_fails_publishes_nothing(tmp_path, code, said):
    """The old result stays; the message is the cell's own, or says that the kernel ended, as when memory runs out."""
    out = tmp_path / "out.ipynb"
    out.write_text("old")
    with pytest.raises(DcilError, match=said):
        chapters.execute(write(tmp_path / "a.ipynb", code), out, progress=False)
    assert out.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ipynb", "out.ipynb"]


def test_redraw_has_the_parameters_of_this_run(monkeypatch):
    """The command has the parameters that are not at their defaults, and none before the page has begun."""
    monkeypatch.setattr(rerun_form, "given", {})
    name = "03-dual-path-training"
    assert rerun_form.redraw(name) == f"make chapter NAME={name}"
    chapters.begin(name, {"preset": "smoke", "sparsity": 0.95, "In": [""]})
    assert rerun_form.redraw(name) == f"make chapter NAME={name} P='-p sparsity 0.95'"


def test_what_a_chapter_takes(tmp_path):
    """Title and the last column of the table of presets; a page without the table has none."""
    text = "| preset | data | what it takes |\n|---|---|---|\n| `smoke` | digits | `a` minute |\n| `quick` | b | c |\n"
    other = "\n| preset | for |\n|---|---|\n| `paper` | all |\n"
    cells = [nbformat.v4.new_markdown_cell(t) for t in ("# A title\n\nWords.", text + other)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    assert chapters.title_and_costs(tmp_path / "a.ipynb") == ("A title", {"smoke": "`a` minute", "quick": "c"})
    nbformat.write(nbformat.v4.new_notebook(cells=cells[:1]), tmp_path / "b.ipynb")
    assert chapters.title_and_costs(tmp_path / "b.ipynb") == ("A title", {})


@pytest.mark.parametrize("number, cells", [("01", ("settings", "train")), ("02", ("settings",))])
def test_a_page_refuses_to_prune_every_weight(number, cells):
    """Before it trains: neither a share of no weights nor their mean size can be computed afterwards."""
    notebook = json.loads(chapters.find_chapter(number).read_text())
    code = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}
    names = {}
    exec(code["parameters"], names)
    names["sparsity"] = 0.9999
    with pytest.raises(DcilError, match=r"0\.9999 .*leaves none of the 4,248 prunable weights"):
        for cell in ("setup", *cells):
            exec(code[cell], names)


def test_stability_is_drawn_of_nothing_too(monkeypatch):
    """Without a record at a tier and a sparsity, chapter 4 draws an empty table and goes on."""
    shown = []
    monkeypatch.setattr(figures, "show_figure", lambda figure, source, place, data, twin: shown.append(len(data)))
    cells = json.loads(chapters.find_chapter("04").read_text())["cells"]
    (draw,) = ("".join(cell["source"]) for cell in cells if cell["id"] == "draw")
    names = {"plt": plt, "figures": figures, "twins": twins}
    exec(draw, names)
    names["draw"](stability.dynamics_table([]), sources.recorded([]), "fig-stability")
    assert shown == [0]
    plt.close("all")


@pytest.mark.parametrize("out", ["there", "file/chapter.ipynb"])
def test_a_place_that_cannot_be_written_is_refused_first(out, tmp_path, monkeypatch):
    """A folder, or a place below a file, is refused before any cell runs, and stays as it was."""
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("executed"))
    with pytest.raises(DcilError, match="is a folder; give the notebook|cannot be written: .*--out"):
        chapters.execute("01", tmp_path / out)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("own", "spins"), [(None, "1000"), ("5", "5")])
def test_chapters_executed_at_once_do_not_spin(own, spins, tmp_path, monkeypatch):
    """The kernel's threads wait for each other without taking cores from other kernels, unless the caller says how."""
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"})
    if own:
        os.environ["GOMP_SPINCOUNT"] = own
    seen = []
    monkeypatch.setattr(chapters, "execute", lambda *_: seen.append(os.environ["GOMP_SPINCOUNT"]))
    monkeypatch.setattr("dcil.lab.book.freshness.write_note", lambda *_: None)
    assert main(["chapter", "01", "--out", str(tmp_path / "out.ipynb")]) == 0
    assert seen == [spins]
