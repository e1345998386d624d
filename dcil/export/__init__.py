"""A trained network as a file, in five formats, and back."""

from dcil.export.formats import ENDINGS, TOLERANCE, Card, difference, load, pack, save, unpack

__all__ = ["ENDINGS", "TOLERANCE", "Card", "difference", "load", "pack", "save", "unpack"]
