"""The tables of the chapters, one file a chapter's."""
