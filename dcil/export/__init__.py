"""Save a trained network in one of five file formats, and load it again."""

from dcil.export.formats import ENDINGS, TOLERANCE, Card, difference, load, pack, save, unpack

__all__ = ["ENDINGS", "TOLERANCE", "Card", "difference", "load", "pack", "save", "unpack"]
