"""Grids of runs: what they ask for, and working through them."""
