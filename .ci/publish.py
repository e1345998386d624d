"""Put a built site at the root of a folder, and under its version if it has one; older versions stay where they are.

    python .ci/publish.py _build/html pages v0.1.0        # root and pages/v0.1.0
    python .ci/publish.py _build/html pages main          # root only
"""

import re
import shutil
import sys
from pathlib import Path

VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")


def publish(site: Path, pages: Path, name: str) -> list[str]:
    """Replace the root of `pages` with `site`, keep its versions and its .git; returns the versions, newest first.

    A published version is history and is not replaced. The site comes from an untrusted job: a link in it could lead to
    this job's credentials, and git executes what a .git says.
    """
    if odd := [str(path) for path in site.rglob("*") if path.is_symlink() or path.name == ".git"]:
        raise SystemExit(f"{odd[0]!a} is a link or a .git; a site has files of its own only")
    if VERSION.fullmatch(name) and (pages / name).exists():
        raise SystemExit(f"{name} is published already; a version does not change")
    for path in pages.iterdir():
        if path.name == ".git" or VERSION.fullmatch(path.name):
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(site, pages, dirs_exist_ok=True)
    if VERSION.fullmatch(name):
        shutil.copytree(site, pages / name)
    kept = [path.name for path in pages.iterdir() if VERSION.fullmatch(path.name)]
    versions = sorted(kept, key=lambda v: tuple(map(int, VERSION.fullmatch(v).groups())), reverse=True)
    items = "".join(f'<li><a href="{v}/index.html">{v}</a></li>' for v in versions)
    (pages / "versions.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Versions of DCIL, measured</title>'
        f'<h1>Versions</h1><ul><li><a href="index.html">newest</a></li>{items}</ul></html>\n',
        encoding="utf-8",
    )
    (pages / ".nojekyll").touch()  # otherwise GitHub leaves out _static
    return versions


if __name__ == "__main__":
    print("versions:", *publish(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
