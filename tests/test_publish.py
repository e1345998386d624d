"""Publishing keeps history: the newest site at the root, each version at its address, none replaced."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "publish.py"


def publish(folder, text, name):
    """Publish a site whose only page says `text`."""
    site = folder / "site"
    (site / "_static").mkdir(parents=True, exist_ok=True)
    (site / "index.html").write_text(text)
    return subprocess.run([sys.executable, SCRIPT, site, folder / "pages", name], capture_output=True, text=True)


def test_versions_stay_and_the_root_is_the_newest(tmp_path):
    """Two versions and a build between them stay; the root loses pages that the newest site no longer has."""
    pages = tmp_path / "pages"
    (pages / ".git").mkdir(parents=True)
    for text, name in (("first", "v0.9.0"), ("between", "main"), ("tenth", "v0.10.0")):
        (pages / "gone.html").write_text("an older page")
        done = publish(tmp_path, text, name)
        assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["versions:", "v0.10.0", "v0.9.0"]
    assert [(pages / p / "index.html").read_text() for p in (".", "v0.9.0", "v0.10.0")] == ["tenth", "first", "tenth"]
    assert not (pages / "gone.html").exists() and (pages / ".nojekyll").exists() and (pages / ".git").exists()
    listed = (pages / "versions.html").read_text()
    assert listed.index("v0.10.0/index.html") < listed.index("v0.9.0/index.html")


def test_a_published_version_does_not_change(tmp_path):
    """Publishing it a second time is refused and changes nothing."""
    (tmp_path / "pages").mkdir()
    assert publish(tmp_path, "once", "v1.0.0").returncode == 0
    done = publish(tmp_path, "twice", "v1.0.0")
    assert done.returncode == 1 and "published already" in done.stderr
    assert (tmp_path / "pages" / "index.html").read_text() == "once"


@pytest.mark.parametrize(
    ("name", "make"),
    [
        (".git", lambda path: path.write_text("gitdir: _static/git")),
        ("_static/.git", lambda path: path.mkdir()),
        ("password.txt", lambda path: path.symlink_to("../checkout/.git/config")),
    ],
)
def test_links_and_folders_of_git_are_refused(tmp_path, name, make):
    """The job that publishes may write and has a credential, and git would execute a hook that a .git names."""
    pages, made = tmp_path / "pages", tmp_path / "site" / name
    (tmp_path / "site" / "_static").mkdir(parents=True)
    pages.mkdir()
    (pages / ".git").write_text("gitdir: ../checkout/.git/worktrees/pages")
    make(made)
    done = publish(tmp_path, "text", "main")
    assert done.returncode == 1 and f"{name}' is a link or a .git" in done.stderr
    assert [path.name for path in pages.iterdir()] == [".git"] and "checkout" in (pages / ".git").read_text()
