"""Write requirements.lock, as uv resolves pyproject.toml, and environment.yml, the same for conda: `make lock`.

Pins that still satisfy pyproject.toml stay; `--upgrade`, or `--upgrade-package NAME`, takes newer versions. Other
settings are in `[tool.uv]`.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, CONDA = ROOT / "requirements.lock", ROOT / "environment.yml"
CONDA_HEADER = """\
# requirements.lock for conda users. Made by `make lock`. Then: pip install --no-deps -e .
name: dcil
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def pins(text: str) -> list[str]:
    """Return the `name==version` lines of a lock."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def conda(pinned: list[str]) -> str:
    """Return the text of environment.yml."""
    return CONDA_HEADER + "".join(f"      - {pin}\n" for pin in pinned)


def main(words: list[str]) -> int:
    """Write both files, passing `words` to uv as options; returns uv's exit code."""
    from uv import find_uv_bin

    command = [find_uv_bin(), "pip", "compile", "--quiet", "pyproject.toml", "--output-file", LOCK.name, *words]
    code = subprocess.run(command, cwd=ROOT).returncode
    if not code:
        CONDA.write_text(conda(pins(LOCK.read_text(encoding="utf-8"))), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
