"""The book's YAML files: what is no list of entries is refused with the file's name and all of an entry's faults."""

import pytest

from dcil.errors import DcilError
from dcil.lab import checkout
from dcil.lab.tables import imagenet
from dcil.lab.yaml_files import Entry, Words, read_entries


class Shop(Entry):
    name: Words
    prices: dict[str, float]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "shops.yml cannot be read"),
        ("[" * 10_000, "shops.yml cannot be read"),
        ("", "shops.yml holds NoneType; it must be a list, with a - before each entry"),
        ("name: a", "shops.yml holds dict; it must be a list"),
        ("- a", "entry 1: it is 'a'; it should be a valid dictionary"),
        ("- {name: a, prices: {}}\n- {prices: {x: 1}}", "entry 2: it has no name"),
        ("- {name: a, prices: {x: cheap}}", "entry 1: prices.x is 'cheap'; it should be a valid number"),
        ("- {name: a, prices: {x: yes}}", "entry 1: prices.x is True; it should be a valid number"),
        ("- {name: 3, prices: a}", "entry 1: name is 3; it should be a valid string; prices is 'a'; it should be a"),
        ("- name: a\n  prices: {}\n  name: b", "name stands twice in the mapping that begins in line 1"),
        ("- {nam: a}", "entry 1: unknown field 'nam': did you mean 'name'"),
    ],
)
def test_what_is_refused(tmp_path, text, said):
    """Each in a sentence that names the file, the entry and the place in it."""
    (tmp_path / "shops.yml").write_text(text)
    with pytest.raises(DcilError) as error:
        read_entries(tmp_path / "shops.yml", Shop)
    assert said in str(error.value) and str(error.value).startswith(str(tmp_path / "shops.yml"))


def test_an_absent_file_is_named(tmp_path):
    """It is refused as one that cannot be read."""
    with pytest.raises(DcilError, match=r"shops.yml cannot be read: no such file"):
        read_entries(tmp_path / "shops.yml", Shop)


def test_entries_come_as_they_are_written(tmp_path):
    """Whole numbers stay whole; nothing is filled in."""
    (tmp_path / "shops.yml").write_text("- {name: a, prices: {x: 1}}")
    assert read_entries(tmp_path / "shops.yml", Shop) == [Shop(name="a", prices={"x": 1})]


def test_what_others_published(tmp_path):
    """The book's rows have their shape; an accuracy that is no number is named with its row and sparsity."""
    path = checkout.root() / "book" / "published.yml"
    assert len(imagenet.read_published(path)) > 5
    (tmp_path / "published.yml").write_text(path.read_text().replace("80: 75.58", "80: high", 1))
    with pytest.raises(DcilError, match=r"published.yml, entry 1: top1.80 is 'high'; it should be a valid number"):
        imagenet.read_published(tmp_path / "published.yml")
