"""The tables of the chapters, one file per chapter or topic."""
