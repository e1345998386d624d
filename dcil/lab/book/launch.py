"""Adds launch buttons for Colab and Binder, and link previews, to a book published from a known repository.

It changes only the copy from which the site is built, before the build. The buttons open the notebooks of the published
site: the repository's branch `gh-pages`, where .ci/publish.py puts them.

    python -m dcil.lab.book.launch _build/stage https://github.com/owner/name v0.1.0
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from dcil.errors import DcilError
from dcil.lab.checkout import root

# Packages that the chapters import and Colab lacks; it has the others, whose versions must not change.
ABSENT = ("papermill", "onnx", "onnxruntime", "onnxscript")
CELL = """\
# Where the book's code is not at hand (Colab, Binder, a downloaded notebook): fetch it. Elsewhere this does nothing.
import importlib.util
import pathlib
import subprocess
import sys

if importlib.util.find_spec("dcil") is None:
    _book = pathlib.Path("dcil-book").resolve()
    _clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", "{ref}", "{repository}"]
    if not _book.exists():
        subprocess.run([*_clone, str(_book)], check=True)
    _pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*_pip, "--no-deps", "--editable", str(_book)], check=True)
    subprocess.run([*_pip, {packages}], check=True)
    sys.path.insert(0, str(_book))
"""


def pins() -> list[str]:
    """Return the `name==version` lines of requirements.lock."""
    return [line for line in (root() / "requirements.lock").read_text(encoding="utf-8").splitlines() if "==" in line]


def launch_cell(repository: str, ref: str) -> dict[str, Any]:
    """Return a notebook's first cell, which fetches the book at `ref`, a tag or branch; pages do not show it."""
    packages = ", ".join(f'"{pin}"' for pin in pins() if pin.split("==")[0] in ABSENT)
    source = CELL.format(ref=ref, repository=repository, packages=packages)
    return {
        "cell_type": "code",
        "id": "launch",
        "metadata": {"tags": ["remove-cell"]},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }


def with_launch_buttons(config: dict[str, Any], repository: str, ref: str) -> dict[str, Any]:
    """Return Jupyter Book's configuration with launch buttons, the site's address and a social card for each page.

    Raises `DcilError` if the repository is not on GitHub, because Colab opens notebooks from there only; and if the tag
    or branch has other characters than letters, digits and `._/-`, because it is written into the notebooks' code.
    """
    if not re.fullmatch(r"\w[\w./-]*", ref, re.ASCII):
        raise DcilError(f"the tag or branch is {ref!r}; expected letters, digits and ._/- only")
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?", repository)
    if not found:
        raise DcilError(f"the repository is {repository!r}; expected https://github.com/OWNER/NAME")
    owner, name = found.groups()
    version = f"{ref}/" if re.fullmatch(r"v\d+\.\d+\.\d+", ref) else ""
    address = f"https://{owner}.github.io/{name}/{version}"
    sphinx = dict(config["sphinx"]["config"])
    sphinx["extensions"] = [*sphinx["extensions"], "sphinxext.opengraph"]
    sphinx["html_theme_options"] = sphinx["html_theme_options"] | {
        "repository_url": f"https://github.com/{owner}/{name}",
        "repository_branch": "gh-pages",
        "path_to_docs": f"{version}_sources",
        "use_repository_button": True,
        "launch_buttons": {
            "notebook_interface": "jupyterlab",
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
        },
    }
    sphinx |= {
        "html_baseurl": address,
        "html_extra_path": ["requirements.txt"],
        "ogp_site_url": address,
        "ogp_site_name": config["title"],
        "ogp_social_cards": {"line_color": "#0072B2", "image_mini": "book/_static/favicon.png"},
    }
    return config | {"sphinx": config["sphinx"] | {"config": sphinx}}


def stage(folder: Path, repository: str, ref: str) -> None:
    """Change the copy of the book in `folder`: its configuration, its notebooks, and what Binder installs."""
    path = folder / "_config.yml"
    config = with_launch_buttons(yaml.safe_load(path.read_text(encoding="utf-8")), repository, ref)
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    for path in sorted((folder / "book").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"].insert(0, launch_cell(repository, ref))
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    source = "--extra-index-url https://download.pytorch.org/whl/cpu"  # PyTorch without CUDA
    (folder / "requirements.txt").write_text("\n".join([source, *pins()]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    stage(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
