"""Launch buttons appear if the repository is known, and what they open fetches the book only if it must."""

import importlib.util
import json
import subprocess
import sys

import nbformat
import pytest
import yaml

from dcil.errors import DcilError
from dcil.lab.book import launch
from dcil.lab.checkout import root

REPOSITORY, CONFIG = "https://github.com/owner/name", yaml.safe_load((root() / "_config.yml").read_text())


def run(monkeypatch, tmp_path, at_hand):
    """Run the first cell as a fresh kernel does; returns the commands that it would have started."""
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if at_hand else None)
    exec(launch.launch_cell(REPOSITORY, "v0.1.0")["source"], {})
    return calls


def test_the_first_cell_fetches_the_tag(monkeypatch, tmp_path):
    """Without dcil, it clones the tag, installs it alone, and adds what Colab lacks at the lock's versions."""
    clone, install, add = run(monkeypatch, tmp_path, at_hand=False)
    assert clone[:2] == ["git", "clone"]
    assert clone[-4:] == ["--branch", "v0.1.0", REPOSITORY, str(tmp_path / "dcil-book")]
    assert install[-3:] == ["--no-deps", "--editable", str(tmp_path / "dcil-book")]
    assert sorted(pin.split("==")[0] for pin in add[5:]) == sorted(launch.ABSENT) and set(add[5:]) <= set(launch.pins())
    assert sys.path[0] == str(tmp_path / "dcil-book")


def test_a_second_start_does_not_clone(monkeypatch, tmp_path):
    """A restarted kernel finds the folder and does not clone again."""
    (tmp_path / "dcil-book").mkdir()
    assert [command[0] for command in run(monkeypatch, tmp_path, at_hand=False)] == [sys.executable, sys.executable]


def test_the_first_cell_does_nothing_at_home(monkeypatch, tmp_path):
    """If dcil can be imported, nothing is started."""
    assert run(monkeypatch, tmp_path, at_hand=True) == []


@pytest.mark.parametrize("ref, part", [("v0.1.0", "v0.1.0/"), ("main", "")])
def test_buttons_lead_to_the_published_notebooks(ref, part):
    """They lead to the folder of a version, or to the root of the branch."""
    sphinx = launch.with_launch_buttons(CONFIG, f"{REPOSITORY}.git", ref)["sphinx"]["config"]
    options = sphinx["html_theme_options"]
    assert (options["repository_url"], options["repository_branch"]) == (REPOSITORY, "gh-pages")
    assert options["path_to_docs"] == f"{part}_sources" and options["launch_buttons"]["colab_url"]
    assert sphinx["ogp_site_url"] == f"https://owner.github.io/name/{part}"
    assert options.items() >= CONFIG["sphinx"]["config"]["html_theme_options"].items()


def test_only_github():
    """Another address is refused, with what was expected."""
    with pytest.raises(DcilError, match="expected https://github.com/OWNER/NAME"):
        launch.with_launch_buttons(CONFIG, "https://example.org/name", "main")


def test_without_a_repository_there_are_no_buttons():
    """The configuration as it is committed names no repository and no launcher."""
    assert not {"launch_buttons", "repository_url"} & set(CONFIG["sphinx"]["config"]["html_theme_options"])


def test_the_copy_is_changed(tmp_path):
    """The staged notebooks are valid and begin with the cell, which no page shows; Binder gets the lock."""
    (tmp_path / "book").mkdir()
    for name in ("_config.yml", "book/runs.ipynb"):
        (tmp_path / name).write_bytes((root() / name).read_bytes())
    launch.stage(tmp_path, REPOSITORY, "main")
    notebook = json.loads((tmp_path / "book" / "runs.ipynb").read_text())
    nbformat.validate(notebook)
    assert notebook["cells"][0]["metadata"]["tags"] == ["remove-cell"] and "name" in notebook["cells"][0]["source"]
    assert set(launch.pins()) <= set((tmp_path / "requirements.txt").read_text().splitlines())
    assert "colab" in (tmp_path / "_config.yml").read_text()


@pytest.mark.parametrize("ref", ['v1"]; import os; ["', "v1;touch x", "$(touch x)", "-v1", ""])
def test_a_tag_that_would_be_code(ref):
    """A tag is written into the first cell of every notebook, so only plain names are accepted."""
    with pytest.raises(DcilError, match="the tag or branch is .* letters, digits"):
        launch.with_launch_buttons(CONFIG, REPOSITORY, ref)
