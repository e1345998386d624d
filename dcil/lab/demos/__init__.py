"""What a reader can play with: each piece is computed by `dcil` when its chapter is executed, never by the page.

A module here computes and renders a template; a script of the same name in `book/_static/` only
chooses which of the computed values are shown. Without the script what the template shows at first stays.
"""
