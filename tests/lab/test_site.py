"""The extension of the site: one caption a figure, and the files that come along."""

import types

import pytest

from dcil.lab.book import site
from dcil.lab.checkout import root

PICTURE, BLOCK = {"data": {"image/png": "x"}}, {"data": {"text/html": "y"}}


def test_what_follows_a_picture_gets_a_cell_without_a_caption():
    """Only where the cell has a caption and more than the picture; the source stays with the picture."""
    figure = {"id": "a", "source": "draw()", "metadata": {"mystnb": {"figure": {"name": "fig-a"}}}}
    other = {"id": "b", "source": "", "metadata": {}, "outputs": [PICTURE, BLOCK]}
    alone = figure | {"outputs": [PICTURE]}
    words = {"id": "c", "source": "words", "metadata": {}}
    shown = site.split([figure | {"outputs": [PICTURE, BLOCK]}, other, alone, words])
    assert [cell["id"] for cell in shown] == ["a", "a-source", "b", "a", "c"]
    assert shown[0]["outputs"] == [PICTURE] and shown[1]["outputs"] == [BLOCK]
    assert shown[1]["metadata"] == {"tags": ["remove-input"]} and shown[2:] == [other, alone, words]


def test_only_records_are_published(tmp_path, monkeypatch):
    """Neither a page nor a script nor what a link points to, whatever lies in the folder."""
    folder = tmp_path / "records"
    folder.mkdir()
    (tmp_path / "secret.json").write_text("{}")
    for name in ("a.json", "index.html", "a.js", ".htaccess"):
        (folder / name).write_text("{}")
    (folder / "b.json").symlink_to(tmp_path / "secret.json")
    monkeypatch.setattr(site, "root", lambda: tmp_path)
    app = types.SimpleNamespace(outdir=str(tmp_path / "out"), builder=types.SimpleNamespace(format="html"))
    site.copy_files(app, None)
    assert [path.name for path in (tmp_path / "out" / "records").iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "error, kind, copied", [(None, "html", True), (None, "latex", False), (ValueError("no"), "html", False)]
)
def test_records_and_plotly_come_along(tmp_path, error, kind, copied):
    """Every record and the library, beside the pages; not after a failed build, nor for paper."""
    app = types.SimpleNamespace(outdir=str(tmp_path), builder=types.SimpleNamespace(format=kind))
    site.copy_files(app, error)
    expected = {f"records/{path.name}" for path in (root() / "records").glob("*.json")} | {"plotly/plotly.min.js"}
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert found == (expected if copied else set())
