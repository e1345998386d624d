"""On a machine without a network: gather the loads of `python -m tools.carry pack` and make a checkout of them.

    python3 load1/unpack.py                    # this load; once all have been gathered: a checkout, dcil-away/
    python3 load1/unpack.py load1 load2        # several at once

It travels with every load, needs Python 3.11 and git only, and may be called again with any load.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path


class Refused(ValueError):
    """An error for people: it says what came, what was expected and how to mend it."""


def git(*words: str, cwd: Path | None = None) -> str:
    """Return git's output; raises `Refused` with git's message if it fails."""
    try:
        done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Refused("git is not on this machine; without it a record cannot name its commit") from error
    if done.returncode:
        raise Refused(f"git {words[0]} in {cwd or Path.cwd()}: {done.stderr.strip()}")
    return done.stdout.strip()


def is_clean(checkout: Path | None = None) -> bool:
    """Return whether all tracked files are as committed."""
    return not git("status", "--porcelain", "--untracked-files=no", cwd=checkout)


def extract(archive: Path, into: Path, *tops: str) -> None:
    """Unpack the top-level folders `tops` of an archive; raises `Refused` if the archive is damaged or truncated."""
    try:
        with gzip.open(archive) as file:  # tarfile alone stops before gzip's checksum
            while file.read(2**20):
                pass
        with tarfile.open(archive) as tar:
            tar.extractall(into, [m for m in tar if m.name.partition("/")[0] in tops], filter="data")
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Refused(f"{archive} is damaged or not whole ({error}); bring it again") from error


def put(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file atomically: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with open(part, "wb") as file:
        file.writelines(chunks)
    part.replace(path)


def gather(load: Path, store: Path) -> tuple[dict, list[Path]]:
    """Check a load and store its piece; returns the load's note, and the paths of all pieces of its cargo."""
    try:
        note = json.loads((load / "load.json").read_text(encoding="utf-8"))
        piece = (load / "cargo").read_bytes()
    except (OSError, ValueError) as error:
        raise Refused(f"{load} is no load, or not whole ({error}); carry it again") from error
    sums, number = note["sums"], note["number"]
    if hashlib.sha256(piece).hexdigest() != sums[number - 1]:
        raise Refused(f"the checksum of {load / 'cargo'} differs; carry {load.name} again")
    cargo = hashlib.sha256("".join(sums).encode()).hexdigest()[:12]  # so that loads of two packings never mix
    pieces = [store / cargo / str(n) for n in range(1, len(sums) + 1)]
    put(pieces[number - 1], [piece])
    return note, pieces


def settle(cargo: Path, into: Path, commit: str) -> None:
    """Make a checkout from the cargo, whole or not at all; an existing one of the same commit is kept."""
    if not into.exists():
        part = into.with_name(f"{into.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        extract(cargo, part, ".git", "data")
        git("reset", "--quiet", "--hard", cwd=part)
        part.rename(into)
    if not (into / ".git").exists() or git("rev-parse", "HEAD", cwd=into) != commit:
        raise Refused(f"{into} is there and is not at {commit[:12]}, of which the loads are; choose another --into")
    if not is_clean(into):
        raise Refused(f"files in {into} differ from the commit, and records would say so; choose another --into")


def unpack(loads: list[Path], into: Path) -> int:
    """Gather loads; once all are there, make the checkout and hand it the progress that came along."""
    for load in loads:
        note, pieces = gather(load, into.with_name(f"{into.name}.loads"))
        print(f"load {note['number']} of {len(pieces)} is here", flush=True)
    if missing := [f"load{piece.name}" for piece in pieces if not piece.exists()]:
        print(f"missing: {', '.join(missing)}")
        return 0
    cargo = pieces[0].with_name("cargo.tgz")
    put(cargo, (piece.read_bytes() for piece in pieces))
    settle(cargo, into, note["commit"])
    with tarfile.open(cargo) as tar:
        progress = any(member.name.startswith(("runs/", "records/")) for member in tar)
    if progress:
        taking = subprocess.run([sys.executable, "-m", "tools.carry", "home", cargo], cwd=into)
        if taking.returncode:
            return taking.returncode
    print(f"{into} is at {note['commit'][:12]}. Go on: cd {into} && python3 -m tools.carry start {note['start']}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Gather and unpack; returns the exit code: 0, or 2 for what a person can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loads", metavar="LOAD", nargs="*", type=Path, help="folders of loads [the one of this file]")
    parser.add_argument("--into", metavar="D", type=Path, default="dcil-away", help="[dcil-away]")
    args = parser.parse_args(argv)
    try:
        return unpack(args.loads or [Path(__file__).resolve().parent], args.into.expanduser().resolve())
    except (Refused, OSError) as error:
        print(f"unpack: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
