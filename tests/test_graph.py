"""The workflow's graph: what a change makes stale, and what is never made again."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from dcil.lab.book.freshness import declared_reads
from dcil.lab.checkout import root

ROOT = root()
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what the graph reads, in which everything that it makes is newer."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("book", "dcil", "records", "experiments", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "_config.yml", "_toc.yml", "docutils.conf", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    for name in (*(f"executed/{name}.{kind}" for name in CHAPTERS for kind in ("ipynb", "json")), "html/index.html"):
        made = folder / "_build" / name
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text("made")
        os.utime(made, (1.1e9, 1.1e9) if "executed" in name else (1.2e9, 1.2e9))
    return folder


def dry_run(tree, *words, target="all"):
    """Return the exit code and the output of a dry run."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", target, "-n", "--cores", "1", *words],
        cwd=tree,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout + done.stderr


def stale(tree, *words):
    """Return the jobs that a dry run would start."""
    code, said = dry_run(tree, *words)
    assert code == 0, said
    jobs = re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    wildcards: \w+=(\S+)", said, re.M)
    return {f"{rule} {name}" for rule, name in jobs} | set(re.findall(r"^(?:local)?rule (site):", said, re.M))


@pytest.mark.parametrize(
    "file, expected",
    [
        (None, set()),
        (
            f"book/{CHAPTERS[0]}.ipynb",
            {f"chapter {CHAPTERS[0]}", "chapter guide", "site"},
        ),  # which says what each takes
        ("dcil/losses.py", {*(f"chapter {name}" for name in CHAPTERS), "site"}),
        ("book/references.md", {"site"}),
        ("book/_static/runs-table.js", {"site"}),
        ("book/assumptions.yml", {"chapter what-the-paper-leaves-open", "site"}),
    ],
    ids=["nothing", "chapter", "code", "page", "script", "assumptions"],
)
def test_what_a_change_makes_stale(tree, file, expected):
    """A changed chapter makes itself stale, changed code every chapter, and no change nothing."""
    if file:
        os.utime(tree / file)  # now: newer than all that was made
    try:
        assert stale(tree) == expected
    finally:
        if file:
            os.utime(tree / file, (1e9, 1e9))


def test_a_changed_record_changes_the_pages(tree):
    """A changed record makes exactly the chapters that read records stale, the front page among them."""
    file = sorted((tree / "records").glob("*.json"))[0]
    os.utime(file)
    try:
        readers = {name for name in CHAPTERS if "records" in declared_reads(ROOT / "book" / f"{name}.ipynb")}
        assert stale(tree) == {*(f"chapter {name}" for name in readers), "site"} and "index" in readers
    finally:
        os.utime(file, (1e9, 1e9))


def test_a_grid_is_trained_and_shown(tree):
    """With a grid, its runs without a record are trained, then the chapters remade that read records; no run twice."""
    asked = stale(tree, "--config", "grid=experiments/precision.yaml")
    missing = {name for name in asked if name.startswith("run ")}
    readers = {name for name in CHAPTERS if "records" in declared_reads(ROOT / "book" / f"{name}.ipynb")}
    kept = {f"run {path.stem}" for path in (ROOT / "records").glob("*.json")}
    assert not missing & kept
    assert asked - missing == ({*(f"chapter {name}" for name in readers), "site"} if missing else set())
    assert not stale(tree, "--forceall", "--config", "grid=experiments/quick.yaml") & kept


def test_runs_need_a_grid(tree):
    """Without a grid, the target `runs` fails and says what to add."""
    code, said = dry_run(tree, target="runs")
    assert code != 0 and "--config grid=experiments/quick.yaml" in said


@pytest.mark.parametrize("asked", ["preset=smok", "dataset=imagenette"])
def test_a_value_that_no_chapter_takes_is_refused_first(tree, asked):
    """A wrong value is refused before any chapter is executed, even if some chapters lack the parameter."""
    code, said = dry_run(tree, "--config", asked)
    name, value = asked.split("=")
    assert code != 0 and f"{name} is '{value}'; {CHAPTERS[0]} takes: " in said and "rule chapter" not in said
