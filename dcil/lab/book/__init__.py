"""The book itself: executing chapters, tracking whether they are fresh, and Sphinx extensions for the site."""
