"""When and where each chapter was last executed, and whether it is fresh: notes beside the executed notebooks.

A note is `NAME.json` beside `NAME.ipynb` in `_build/executed/`. It holds a hash of every file that the chapter reads,
to tell why a chapter is stale. The notebooks hold no timestamps: the same chapter gives the same file.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dcil.errors import DcilError, unknown
from dcil.io.files import write_text_atomically

#: What a chapter may declare in its notebook's metadata, `{"dcil": {"reads": ["records"]}}`, and the files on which it
#: then depends besides itself and the code. The Snakefile uses this too.
READS = {
    "records": ["records/*.json"],
    "benchmarks": ["benchmarks/**/*.csv", "benchmarks/**/*.yaml"],
    "grids": ["experiments/*.yaml"],
    "claims": ["book/claims.yml"],
    "verdicts": ["book/verdicts.yml"],
    "assumptions": ["book/assumptions.yml"],
    "published": ["book/published.yml"],
    "citation": ["CITATION.cff"],
    "chapters": ["book/*.ipynb"],
}
CODE = ["dcil/**/*.py", "dcil/**/*.json", "dcil/**/*.html", "requirements.lock"]
FRESH, STALE, NEVER = "fresh", "stale", "not executed"


def matching_files(patterns: Iterable[str], root: str | Path = ".") -> list[str]:
    """Return the files that match any of the patterns, as sorted paths relative to `root`."""
    return sorted({path.relative_to(root).as_posix() for pattern in patterns for path in Path(root).glob(pattern)})


def declared_reads(notebook: str | Path) -> list[str]:
    """Return what a notebook's metadata says that it reads; raises `DcilError` for a name that is not in `READS`."""
    reads = json.loads(Path(notebook).read_text(encoding="utf-8"))["metadata"].get("dcil", {}).get("reads", [])
    for name in reads:
        if name not in READS:
            raise unknown(f"declared read of {notebook}", name, READS)
    return reads


def chapter_inputs(notebook: str | Path, root: str | Path = ".") -> list[str]:
    """Return the files a chapter depends on, relative to `root`: itself, the code, the lock, and the data it reads."""
    root, notebook = Path(root), Path(notebook)
    patterns = [pattern for name in declared_reads(root / notebook) for pattern in READS[name]]
    return [notebook.as_posix(), *matching_files([*CODE, *patterns], root)]


def _hash(path: Path) -> str:
    """Return a short hash of a file; a notebook's covers its cells' sources, not their outputs."""
    content = path.read_bytes()
    if path.suffix == ".ipynb":
        cells = json.loads(content)["cells"]
        content = json.dumps([[cell["cell_type"], cell["source"]] for cell in cells]).encode()
    return hashlib.sha256(content).hexdigest()[:12]


@dataclass(frozen=True)
class Note:
    """One execution of a chapter: when (UTC), how long (seconds), its parameters, where, and its inputs' hashes."""

    chapter: str
    when: str
    seconds: float
    preset: str
    parameters: dict[str, Any]
    machine: str
    cores: int
    python: str
    torch: str
    commit: str
    dirty: bool
    inputs: dict[str, str] = field(repr=False)


def write_note(notebook: Path, out: Path, given: dict[str, Any], started: float, root: Path) -> Path:
    """Write the note of an execution that has just ended beside its result; `started` is from `time.monotonic`."""
    import torch

    from dcil.lab.book.chapters import parameters
    from dcil.machine import device_name, num_cores, source_state

    defaults = {p.name: p.value for p in parameters(notebook)}
    commit, dirty = source_state()
    note = Note(
        chapter=notebook.stem,
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        seconds=round(time.monotonic() - started, 1),
        preset=given.get("preset", defaults.get("preset", "")),
        parameters={name: value for name, value in given.items() if name != "preset"},
        machine=device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        cores=num_cores(),
        python=platform.python_version(),
        torch=torch.__version__,
        commit=commit,
        dirty=dirty,
        inputs={path: _hash(root / path) for path in chapter_inputs(notebook.resolve().relative_to(root), root)},
    )
    path = out.with_suffix(".json")
    write_text_atomically(path, json.dumps(asdict(note), indent=1) + "\n")
    return path


def read_notes(folder: str | Path) -> dict[str, Note]:
    """Return a folder's notes by chapter; raises `DcilError` naming a file that is not a note."""
    notes = map(_read, sorted(Path(folder).glob("*.json")))
    return {note.chapter: note for note in notes}


def _read(path: Path) -> Note:
    try:
        return Note(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DcilError(
            f"{path} is not a note of an executed chapter ({error}); it was left as it is. Give a folder "
            "that `python -m dcil chapter` wrote to"
        ) from error


def why_stale(note: Note, root: str | Path) -> str:
    """Return in a few words what has changed since an execution; "" if it is fresh."""
    root = Path(root)
    now = {path: _hash(root / path) for path in chapter_inputs(next(iter(note.inputs)), root)}
    changed = [path for path in note.inputs if path in now and now[path] != note.inputs[path]]
    came = [path for path in now if path not in note.inputs]
    went = [path for path in note.inputs if path not in now]
    return "; ".join(
        f"{word}: {_few(paths)}" for word, paths in (("changed", changed), ("new", came), ("gone", went)) if paths
    )


def _few(paths: list[str], most: int = 3) -> str:
    rest = len(paths) - most
    return ", ".join(paths[:most]) + (f" and {rest} more" if rest > 0 else "")


State = tuple[str, str, str, Note | None]  # a chapter's name; FRESH, STALE or NEVER; the reason; its note


def states(chapters: Iterable[str], notes: dict[str, Note], root: str | Path) -> list[State]:
    """Return each chapter's name, its state, why it is stale ("" if it is not), and its note if there is one."""
    found = []
    for name in chapters:
        note = notes.get(name)
        why = why_stale(note, root) if note else ""
        found.append((name, NEVER if note is None else STALE if why else FRESH, why, note))
    return found


def duration_in_words(seconds: float) -> str:
    """Return a duration in words: seconds, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def status_page(chapters: Iterable[str], notes: dict[str, Note], root: str | Path) -> str:
    """Return in Markdown a table of all chapters and where they were executed; without notes, a sentence saying so."""
    if not notes:
        return "No page was executed for this site: it shows the outputs that the repository holds.\n"
    lines = ["| page | executed (UTC) | took | preset | state |", "|---|---|---|---|---|"]
    places: dict[str, list[str]] = {}
    for name, state, why, note in states(chapters, notes, root):
        link = f"[]({name}.ipynb)"  # MyST puts the title there
        if note is None:
            lines.append(f"| {link} | | | | **{state}** |")
            continue
        values = ", ".join([note.preset or "–", *(f"`{k} = {v}`" for k, v in note.parameters.items())])
        said = state if state == FRESH else f"**{state}**: {why}"
        lines.append(f"| {link} | {note.when} | {duration_in_words(note.seconds)} | {values} | {said} |")
        commit = note.commit[:7] + (", with changes" if note.dirty else "")
        place = f"{note.machine}, {note.cores} core(s), Python {note.python}, PyTorch {note.torch}, commit {commit}"
        places.setdefault(place, []).append(name)
    total = duration_in_words(sum(note.seconds for note in notes.values()))
    lines += ["", f"{len(notes)} pages, {total} of execution in all."]
    alone = len(places) == 1
    lines += ["", *(f"- {place}{'' if alone else ': ' + ', '.join(names)}" for place, names in places.items())]
    return "\n".join(lines) + "\n"
