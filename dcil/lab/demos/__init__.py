"""Demonstrations that readers can play with; `dcil` computes them when a chapter is executed, never the page itself.

An interactive module here computes all values and renders a template; a script of the same name in `book/_static/` only
chooses which of them are shown. Without the script, the template's initial view stays.
"""
