"""The book itself: chapters executed, their freshness, what Sphinx is told."""
