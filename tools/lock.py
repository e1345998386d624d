"""Write requirements.lock and environment.yml from what is installed: `make lock`. With `--check`, only compare."""

import difflib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, CONDA = ROOT / "requirements.lock", ROOT / "environment.yml"
HEADER = "# Exact versions for CI and for `make`; environment.yml holds the same list. Made by `make lock`.\n"
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
# What a CUDA build of torch brings along; a lock that names it would not install beside a CPU build.
CUDA = re.compile(r"(nvidia|cuda)[-_]|triton==")


def pins(text: str) -> list[str]:
    """Return the `name==version` lines of a lock."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def frozen() -> list[str]:
    """Return `name==version` of all that is installed here, less dcil, pip, setuptools and local version suffixes."""
    leave = [word for name in ("dcil", "pip", "setuptools", "wheel") for word in ("--exclude", name)]
    command = [sys.executable, "-m", "pip", "freeze", "--exclude-editable", *leave]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for line in lines:
        if not re.fullmatch(r"[\w.-]+==\S+", line):
            print(f"left out, because it has no version in an index: {line}", file=sys.stderr)
    kept = {line.partition("+")[0] for line in lines if re.fullmatch(r"[\w.-]+==\S+", line) and not CUDA.match(line)}
    return sorted(kept, key=str.upper)


def lock(pinned: list[str]) -> str:
    """Return the text of requirements.lock."""
    return HEADER + "".join(f"{pin}\n" for pin in pinned)


def conda(pinned: list[str]) -> str:
    """Return the text of environment.yml."""
    return CONDA_HEADER + "".join(f"      - {pin}\n" for pin in pinned)


def main(words: list[str]) -> int:
    """Write both files, or compare them with what is installed; returns the exit code."""
    if words not in ([], ["--check"]):
        print(f"got {' '.join(words)}; usage: python tools/lock.py [--check]", file=sys.stderr)
        return 2
    pinned, differ = frozen(), False
    for path, text in ((LOCK, lock(pinned)), (CONDA, conda(pinned))):
        if not words:
            path.write_text(text)
            continue
        old = path.read_text().splitlines() if path.exists() else []
        difference = list(difflib.unified_diff(old, text.splitlines(), path.name, "installed", lineterm="", n=0))
        print("\n".join(difference) if difference else f"{path.name} is what is installed")
        differ |= bool(difference)
    return int(differ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
