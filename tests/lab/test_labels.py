"""What methods are called and how they look, the same on every page."""

from dcil.data.datasets import DATASETS
from dcil.lab.page import figures
from dcil.lab.runs import names
from dcil.methods import METHODS


def test_every_method_has_a_name_for_people():
    """Names are distinct, and none is left over from a method that is gone."""
    assert set(names.LABELS) == set(METHODS)
    assert len(set(names.LABELS.values())) == len(METHODS)


def test_every_data_set_has_a_name_for_people():
    """None is left over from a data set that is gone."""
    assert set(names.DATA_SETS) == set(DATASETS)


def test_colours_are_of_methods():
    """A colour belongs to a method or a variant of one, and no two methods share it."""
    assert {name.split(", ")[0] for name in figures.COLOURS} <= set(METHODS)
    assert len(set(figures.COLOURS.values())) == len(figures.COLOURS)
