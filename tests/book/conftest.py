"""The built site, served and as files, in a real browser that notes what goes wrong."""

import contextlib
import functools
import gzip
import http.server
import io
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tools import chromium

SITE = Path(__file__).parents[2] / "_build" / "html"


@pytest.fixture(scope="session")
def would_run():
    """Return a function that gives a make line's last command, without running it: it would build an environment."""

    def told(line):
        words = f"{line} -n --no-print-directory"  # make inside make would end by naming its folder
        said = subprocess.run(words, shell=True, cwd=SITE.parents[1], stdout=subprocess.PIPE, text=True).stdout
        return said.strip().splitlines()[-1]

    return told


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves the site as GitHub Pages does, text compressed."""

    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript"}

    def log_message(self, *args):
        pass

    def send_head(self):
        path = Path(self.translate_path(self.path))
        if path.suffix not in (".html", ".css", ".js", ".svg") or not path.is_file():
            return super().send_head()
        body = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        for name, value in {
            "Content-Type": self.guess_type(path),
            "Content-Encoding": "gzip",
            "Content-Length": len(body),
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        return io.BytesIO(body)


class Listener(http.server.ThreadingHTTPServer):
    """Does not report a page that was closed while it was loading."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@pytest.fixture(scope="session")
def bases():
    """The site's addresses: served on a free local port, and as files."""
    handler = functools.partial(Server, directory=str(SITE))
    with Listener(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"http": f"http://127.0.0.1:{server.server_port}", "file": SITE.as_uri()}
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """One browser for all tests of a process."""
    pytest.importorskip("playwright")
    with chromium.headless() as browser:
        yield browser


@pytest.fixture
def watched(browser, bases):
    """Return a function that opens a page and gathers console errors, failed requests and requests to elsewhere."""
    with contextlib.ExitStack() as stack:

        def visit(name, scheme="http", width=1280, javascript=True):
            # Reduced motion: the theme scrolls smoothly otherwise, and a click lands where its target no longer is.
            context = browser.new_context(
                viewport={"width": width, "height": 900}, reduced_motion="reduce", java_script_enabled=javascript
            )
            stack.callback(context.close)
            page, problems = context.new_page(), []
            page.on("console", lambda m: problems.append(f"console: {m.text}") if m.type == "error" else None)
            page.on("pageerror", lambda e: problems.append(f"error: {e}"))
            page.on("requestfailed", lambda r: problems.append(f"failed: {r.url}"))
            page.on("response", lambda r: problems.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
            page.on(
                "request",
                lambda r: (
                    problems.append(f"external: {r.url}")
                    if not r.url.startswith((bases[scheme], "data:", "blob:"))
                    else None
                ),
            )
            page.goto(f"{bases[scheme]}/{name}", wait_until="load")
            if javascript:
                page.evaluate("async () => { await window.MathJax?.startup?.promise; await document.fonts.ready }")
            return page, problems

        yield visit
