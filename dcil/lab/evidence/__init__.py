"""Verdicts on claims, by rule; when they changed; what is left of them when there are many."""
