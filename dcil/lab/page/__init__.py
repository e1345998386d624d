"""What a page shows: figures, the sources of their numbers, and a form for the chapter's parameters."""
