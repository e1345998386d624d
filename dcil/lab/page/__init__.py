"""What a page shows: figures, where their numbers come from, the form of its parameters."""
