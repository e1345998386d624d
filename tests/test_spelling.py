"""No common misspelling in what people read: pages, docstrings, comments, guides, messages."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = ("*.py", "*.md", "*.yml", "*.yaml", "*.toml", "*.cff", "*.js", "*.css", "*.ipynb", "Makefile", "Snakefile")
# Tests misspell on purpose.
FOLDERS = (".", ".github", "benchmarks", "book", "dcil", "experiments", "profiles", "tools")


def text(path):
    """What people read of a file: of a notebook its sources, one cell after the other."""
    if path.suffix != ".ipynb":
        return path.read_text()
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])


def test_spelling(tmp_path):
    """codespell finds nothing; a copy is checked, because pictures in notebooks look like misspelt words."""
    for folder in FOLDERS:
        paths = (ROOT / folder).glob if folder == "." else (ROOT / folder).rglob
        for path in (p for kind in KINDS for p in paths(kind)):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text(path))
    assert len(list(tmp_path.rglob("*.ipynb"))) > 10
    (tmp_path / "canary.md").write_text("This is teh test of the test.\n")
    words = [sys.executable, "-m", "codespell_lib", "."]
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True).stdout.splitlines()
    assert said == ["./canary.md:1: teh ==> the"]
