"""Grids of runs: what they ask for, and the queue that works through them."""
