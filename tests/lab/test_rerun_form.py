"""A parameter's line becomes the right input, and a shell reads the form's lines as they were meant."""

import re
import shlex

import pytest

from dcil.lab.book.chapters import find_chapter, parameters
from dcil.lab.page.rerun_form import Parameter, field, form, lines, shown
from dcil.methods import METHODS

PRESET = Parameter("preset", '"smoke"', "smoke | quick | paper: what is trained live")
SPARSITY = Parameter("sparsity", "0.9", "final fraction of weights removed, in [0, 1)")
EPOCHS = Parameter("epochs", "None", "whole number, at least 2; None: the preset's")
FOLDER = Parameter("data_dir", "None", "folder of CIFAR; None: DCIL_DATA, else ./data")
NAMES = Parameter("methods", '["ste", "dcil"]', "names of dcil.methods: trained live")
MINUTES = Parameter("minutes", "[1, 30]", "numbers above 0: the times of the last table")


@pytest.mark.parametrize(
    "parameter, choices, nullable, limits",
    [
        (PRESET, ("smoke", "quick", "paper"), False, None),
        (SPARSITY, (), False, {"min": "0", "max": "1", "step": "any"}),
        (EPOCHS, (), True, {"min": "2", "step": "1"}),
        (FOLDER, (), True, None),
        (NAMES, (), False, None),
        (MINUTES, (), False, None),
        (Parameter("tier", '"quick"', "quick: the records that are shown"), ("quick",), False, None),
        (Parameter("method", '"dcil"', "a name of dcil.methods"), tuple(METHODS), False, None),
    ],
    ids=lambda p: getattr(p, "name", ""),
)
def test_what_a_line_says(parameter, choices, nullable, limits):
    """Choices, None and ranges are read from the meaning."""
    assert (parameter.choices, parameter.nullable, parameter.limits) == (choices, nullable, limits)


def test_every_parameter_of_the_book_is_understood():
    """Every line has a meaning; a number has a range or choices; a default is among its choices."""
    for notebook in sorted(find_chapter("index").parent.glob("*.ipynb")):
        for p in parameters(notebook):
            where = f"{notebook.stem}: {p.name}"
            assert p.meaning, where
            assert not p.choices or p.nullable or shown(p.value) in p.choices, where
            bounded = p.limits is None or "min" in p.limits or p.choices or "above 0" in p.meaning
            assert bounded, f"{where} has no range"


@pytest.mark.parametrize(
    "parameter, right, wrong",
    [
        (PRESET, ["smoke", "paper"], ["smok", None, 1]),
        (SPARSITY, [0, 0.5, 0.999], [1, -0.1, 95, "0.9", True, float("nan"), None]),
        (EPOCHS, [2, 300, None], [1, 2.5, 0, "2"]),
        (Parameter("sparsity", "0.95", "0.9 | 0.95: of the records"), [0.9, 0.95], [0.8, "0.9"]),
        (Parameter("margin", "0.3", "points, above 0: fixed beforehand"), [0.1, 1], [0, -1]),
        (Parameter("threads", "1", "1 | 2: of the latencies shown"), [1, 2], [3, "1", True]),
        (Parameter("tier", '"quick"', "quick: the records that are shown"), ["quick"], ["paper", None]),
        (Parameter("model", "None", "a name of dcil.models; None: the preset's"), ["resnet8", None], ["resnet9", 8]),
        (FOLDER, ["anywhere", "", None], [2024, ["here"], True]),
        (NAMES, [["ste"]], ["ste", '["ste"]', [], ["sta"], [["ste"]], ["ste", None], ["ste", "ste"], None]),
        (MINUTES, [[1], [0.5, 600]], [30, [], [0], [-1], ["1"], [True], [float("nan")], [None]]),
    ],
    ids=lambda p: getattr(p, "name", ""),
)
def test_values_that_a_parameter_takes(parameter, right, wrong):
    """Its line says choices, a range without its upper end, whole numbers, and whether None means something."""
    assert all(map(parameter.takes, right))
    assert not any(map(parameter.takes, wrong))


def test_inputs():
    """Choices are a list with this run's value chosen, a number has its range, and None is an empty field."""
    assert "<option selected>quick</option>" in field(PRESET, "quick")
    assert 'type="number" min="0" max="1" step="any" required' in field(SPARSITY, 0.5)
    assert 'value=""' in field(EPOCHS, None) and 'placeholder="None"' in field(EPOCHS, None)
    assert 'value="[&quot;ste&quot;, &quot;dcil&quot;]"' in field(NAMES, ["ste", "dcil"])
    assert "<option selected>mine</option>" in field(PRESET, "mine"), "a value of this run that no list has"


def test_without_the_script_there_is_a_table_and_no_input():
    """Every input, and the sentence about them, is hidden until the script shows it; labels name the inputs."""
    text = form("03-x", [PRESET, EPOCHS], {"preset": "quick", "epochs": None})
    assert all(" hidden" in tag for tag in re.findall(r"<(?:input|select|span)[^>]*>", text))
    assert re.findall(r'<label for="([\w-]+)"', text) == re.findall(r'<(?:input|select) id="([\w-]+)"', text)
    assert "make chapter NAME=03-x P=&#x27;-p preset quick&#x27;" in text


@pytest.mark.parametrize("value", ["quick", "a folder", "it's", 0.5, None])
def test_lines_are_quoted_for_a_shell(value):
    """A shell hands `make` and papermill the value that was meant."""
    made = lines("03-x", {"name": value})
    assert shlex.split(made["papermill"])[-3:] == ["-p", "name", shown(value)]
    given = shlex.split(made["make"])[-1].removeprefix("P=")
    assert shlex.split(given) == ["-p", "name", shown(value)]


def test_a_list_that_is_empty_by_default_may_be_empty():
    """Of its entries no example is given, so any text is one."""
    free = Parameter("variants", "[]", "variants that are shown")
    assert free.takes([]) and free.takes(["dcil", "ste"]) and not free.takes([1]) and not free.takes("ste")
    assert Parameter("epochs", "None", "of the run").takes(2) and not FOLDER.takes(2)
    assert NAMES.takes(["dcil"]) and not NAMES.takes([]) and not NAMES.takes(["dcil", "dcil"])
