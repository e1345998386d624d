"""The script that shows the glossary's words where they stand."""

from dcil.lab.book import glossary


def test_words_with_one_definition_share_it():
    """Each anchor has its word, without the theme's heading mark, and the definition below it."""
    page = (
        '<dl class="glossary simple"><dt id="term-a">a<a class="headerlink" href="#term-a">#</a></dt>'
        '<dt id="term-b">b</dt><dd><p>One &amp; <a href="#term-c">c</a>.</p></dd>'
        '<dt id="term-c">c</dt><dd><p>Two.</p></dd></dl>'
    )
    one = '<p>One &amp; <a href="#term-c">c</a>.</p>'
    assert glossary.definitions(page) == {
        "term-a": {"word": "a", "says": one},
        "term-b": {"word": "b", "says": one},
        "term-c": {"word": "c", "says": "<p>Two.</p>"},
    }
