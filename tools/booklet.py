"""The whole book as one PDF, from the built site: its pages in the order of the contents, printed by Chromium.

python tools/booklet.py        # what `make print` runs, after `make book`
"""

import posixpath
import re
import sys
from pathlib import Path

from bs4 import BeautifulSoup

from tools import chromium

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
PDF = ROOT / "_build" / "dcil-measured.pdf"
NUMBER = '<div style="font-size: 8px; width: 100%; text-align: center"><span class="pageNumber"></span></div>'
SCREEN = "script, form.rerun [name], form.rerun span, #runs-form, a.headerlink, .prev-next-area"  # useless on paper
MARGIN = {"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}


def contents():
    """Return the site's HTML files for the pages in _toc.yml, in its order."""
    return [
        f"{name}.html"
        for name in re.findall(r"(?:root|file): (book/\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    ]


def local(page, target, pages):
    """Return a page's link or picture address relative to the site's folder; one within `pages` becomes an anchor."""
    if re.match(r"[a-z]+:|//", target):
        return target
    path, _, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
    return f"#{path}:{anchor}" if path in pages else path


def whole(pages):
    """Return the book as one HTML page, to be put into the site's folder."""
    head, articles = BeautifulSoup((SITE / pages[0]).read_text(encoding="utf-8"), "html.parser").head, []
    for page in pages:
        article = BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser").find("article")
        assert article
        for node in article.select(SCREEN):
            node.decompose()
        for node in article.find_all(True):
            if node.get("id"):
                node["id"] = f"{page}:{node['id']}"
            for key in {"href", "src"} & set(node.attrs):
                node[key] = local(page, node[key], pages)
        article["id"] = f"{page}:"
        articles.append(article)
    assert head
    for node in head.select("script:not([src*=mathjax]), link[rel=next], link[rel=prev]"):
        if "MathJax" not in (node.string or ""):
            node.decompose()
    for node in head.find_all(True):
        for key in {"href", "src"} & set(node.attrs):
            node[key] = local(pages[0], node[key], ())
    body = "\n".join(map(str, articles))
    return f'<!doctype html><html lang="en" data-theme="light">{head}<body class="booklet">{body}</body></html>'


def main():
    """Write the PDF."""
    if not SITE.exists():
        sys.exit(f"{SITE} is not there; build the site first: make book")
    page_of_all = SITE / "booklet.html"
    page_of_all.write_text(whole(contents()), encoding="utf-8")
    try:
        with chromium.headless() as browser:
            page = browser.new_page()
            page.goto(page_of_all.as_uri(), wait_until="load")
            page.evaluate("async () => { await window.MathJax?.startup?.promise; await document.fonts.ready }")
            page.evaluate("async () => { for (const i of document.images) { i.loading = 'eager'; await i.decode() } }")
            page.pdf(
                path=PDF,
                format="A4",
                margin=MARGIN,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=NUMBER,
                scale=0.75,
                print_background=True,
                outline=True,
                tagged=True,
            )
    finally:
        page_of_all.unlink()
    print(PDF)


if __name__ == "__main__":
    main()
