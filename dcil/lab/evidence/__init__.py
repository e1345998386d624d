"""Verdicts on claims by rule, the log of their changes, and their p-values corrected for multiple comparisons."""
