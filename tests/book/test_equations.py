"""Every numbered equation names a function of dcil that exists and links to a test that exists."""

import ast
import functools
import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LABEL = re.compile(r"^\$\$ \(([\w-]+)\)$", re.M)
ROLE = re.compile(r"\{py:\w+\}`(dcil[\w.]+)`")
PAGE = (ROOT / "book" / "equations.md").read_text()
# On the page of equations: target, equation, function(s), test and its file.
ENTRY = re.compile(
    r"^\(test-([\w-]+)\)=\n\{eq\}`\1` is (.+?)\. .*?:{3}\{dropdown\} `(\w+)`, (tests/[\w/]+\.py)\n"
    r"```\{literalinclude\} \.\./\4\n:pyobject: \3\n```\n:::$",
    re.M | re.S,
)
ENTRIES = {match[1]: match.groups()[1:] for match in ENTRY.finditer(PAGE)}


def numbered():
    """Yield each numbered equation with the prose of its chapter from there on."""
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        for match in LABEL.finditer(text):
            yield match[1], text[match.end() :]


EQUATIONS = dict(numbered())


def find(name):
    """Return what a dotted name of dcil stands for; fails if there is nothing of that name."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[cut:], module)
    raise AttributeError(name)


def test_the_page_has_every_equation_once():
    """The page of equations and the chapters have the same ones; there is no second label, no label of another form."""
    assert sorted(ENTRIES) == sorted(EQUATIONS)
    labels = re.findall(r"\(eq-[\w-]+\)(?!=)", "".join(p.read_text() for p in (ROOT / "book").glob("*.ipynb")))
    assert sorted(labels) == sorted(f"({label})" for label in EQUATIONS)


@pytest.mark.parametrize("label", EQUATIONS)
def test_equation_is_linked(label):
    """The chapter names the function and then links to the test; the page names the same function, and both exist."""
    functions, test, file = ENTRIES[label]
    found = ROLE.findall(functions)
    assert found and all(callable(find(name)) or isinstance(find(name), property) for name in found)
    text = EQUATIONS[label]
    assert f"](#test-{label})" in text, "link the test, as [test](#test-eq-...)"
    assert set(found) & set(ROLE.findall(text[: text.index(f"](#test-{label})")]))
    tree = ast.parse((ROOT / file).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"}


def test_find_fails_for_what_is_not_there():
    """The check itself can fail: modules, functions and methods that dcil does not have."""
    for name in ("dcil.rules.refine", "dcil.nothing.at_all", "dcil.DualPath.sparsify"):
        with pytest.raises(AttributeError):
            find(name)
