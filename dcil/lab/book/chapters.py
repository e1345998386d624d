"""Chapters are parameterized notebooks: functions to describe, begin and execute them, with papermill."""

from __future__ import annotations

import ast
import inspect
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dcil.errors import DcilError, reason, unknown
from dcil.io.files import write_text_atomically
from dcil.lab import checkout
from dcil.lab.page import rerun_form
from dcil.lab.page.rerun_form import Parameter
from dcil.lab.wording import listed

# Entries of `In` when a fresh kernel calls `begin`: the empty In[0], the parameter cell, papermill's injected cell, and
# the cell that imports and calls `begin`.
_FRESH = 4
# Types that papermill can inject; anything else in a namespace was imported or belongs to IPython.
_PLAIN = (str, int, float, bool, list, dict, type(None))


def find_chapter(name: str | Path) -> Path:
    """Return the path of a chapter's notebook, given that path, the chapter's name or its number (3, "03")."""
    if str(name).endswith(".ipynb"):
        if not Path(name).exists():
            raise DcilError(f"there is no notebook {name}")
        return Path(name)
    known = {path.stem: path for path in sorted((checkout.root() / "book").glob("*.ipynb"))}
    matches = [stem for stem in known if stem == str(name) or stem.split("-")[0] == str(name).zfill(2)]
    if len(matches) != 1:
        raise unknown("chapter", str(name), known)
    return known[matches[0]]


def parameters(notebook: str | Path) -> list[Parameter]:
    """Return the parameters that a chapter's parameter cell declares, in its order."""
    import papermill

    try:
        inspected = papermill.inspect_notebook(str(notebook))
    except Exception as error:  # the errors of papermill and nbformat have no common base class
        raise DcilError(
            f"{notebook} cannot be read as a notebook ({type(error).__name__}: {str(error):.120}). It was left as it is"
        ) from error
    return [Parameter(p["name"], p["default"], p["help"]) for p in inspected.values()]


def title_and_costs(notebook: str | Path) -> tuple[str, dict[str, str]]:
    """Return a chapter's title, and what it takes at each preset, in its own words; {} without a table of presets."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "markdown")
    title = re.search(r"^# (.+)", text, re.M)
    table = re.search(r"^\| preset \|.*what it takes \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.M)
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", table[1], re.M) if table else []
    return title[1] if title else Path(notebook).stem, dict(rows)


def parse_value(text: str) -> Any:
    """Return a parameter's value as given on the command line: a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):  # the last two: deeply nested brackets
        return text


def check_parameters(notebook: str | Path, given: Mapping[str, Any]) -> None:
    """Raise `DcilError` for a name that is not a parameter of the chapter, or a value that the parameter forbids."""
    known = {p.name: p for p in parameters(notebook)}
    for name, value in given.items():
        if name not in known:
            raise unknown(f"parameter of {Path(notebook).stem}", name, known)
        if not known[name].takes(value):
            raise _refused(known[name], value, Path(notebook).stem)


def _refused(parameter: Parameter, value: Any, chapter: str) -> DcilError:
    """Return the error for a value that a parameter does not take, with the name that was probably meant."""
    if parameter.entry is None:
        one, given = parameter, [value]
    else:
        one, given = parameter.entry, value if isinstance(value, list) else []
    misspelt = [name for name in given if isinstance(name, str) and not one.takes(name)]
    if one.registry and misspelt:
        return unknown(f"{parameter.name} of {chapter}", misspelt[0], one.choices)
    said = f"{parameter.name} is {value!r}; {chapter} takes: {parameter.meaning}"
    if parameter.entry:
        said += f". A list is expected, each entry once, such as {parameter.default} (papermill takes it with -y)"
    elif parameter.is_text and not parameter.choices:
        said += f". Text is expected, such as ./{value}"
    return DcilError(said)


def begin(name: str, namespace: dict[str, Any]) -> None:
    """Check a running chapter's parameters, and remember them for `rerun_box` and the commands below its figures.

    Called with `globals()` right after the parameter cell. An unknown parameter, about which papermill only warns, is
    an error here. Where other records are shown than those that the text was written for, a note says so.
    """
    from IPython.display import Markdown, display

    notebook = find_chapter(name)
    given = {k: v for k, v in namespace.items() if type(v) in _PLAIN and k not in ("In", "Out") and k[0] != "_"}
    if len(namespace.get("In", [])) <= _FRESH:  # later, a reader's own variables would be taken for parameters
        check_parameters(notebook, given)
    declared = [p for p in parameters(notebook) if p.name in given]
    rerun_form.given[notebook.stem] = {p.name: given[p.name] for p in declared if given[p.name] != p.value}
    rerun_form.forms[notebook.stem] = rerun_form.form(notebook.stem, declared, given)
    if note := _note_on_other_records(declared, given):
        display(Markdown(note))


def _note_on_other_records(declared: list[Parameter], given: Mapping[str, Any]) -> str:
    """Return for which records a page's text was written, "" if it shows these very records."""
    other = [p for p in declared if "record" in p.meaning and given[p.name] != p.value]
    if not other:
        return ""
    here = listed(f"{p.name} {rerun_form.shown(given[p.name])}" for p in other)
    there = listed(f"{p.name} {rerun_form.shown(p.value)}" for p in other)
    return (
        f"**This page was executed with {here}.** Tables, figures and what is computed in sentences follow. "
        f"All other sentences, and the captions, were written for {there}."
    )


def rerun_box(name: str) -> Any:
    """Return the folded box shown at the end of a chapter that has begun: its parameters, and how to run it."""
    from IPython.display import HTML

    return HTML(rerun_form.box(name))


def code(*functions: Callable[..., Any]) -> Any:
    """Return the source of functions from an earlier cell, formatted as code, to show where the text explains them."""
    from IPython.display import Markdown

    return Markdown("```python\n" + "\n\n".join(inspect.getsource(function) for function in functions) + "```")


def _tidy(notebook: Any) -> Any:
    """Drop papermill's timestamps and paths, so that the same chapter gives the same file."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    return notebook


def _require_writable(out: Path) -> None:
    if out.is_dir():
        raise DcilError(f"{out} is a folder; give the notebook to write, e.g. {out / 'chapter.ipynb'}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise DcilError(f"{out} cannot be written: {reason(error)}; choose another place with --out") from error


def execute(name: str | Path, out: str | Path, given: dict[str, Any] | None = None, progress: bool = True) -> Path:
    """Execute a chapter with papermill and write the result to `out`, only if every cell ran.

    Raises `DcilError` for an unknown chapter or parameter, for an `out` that cannot be written, both before any cell
    runs, with the cell's own message if a cell fails, and if the kernel dies; `out` then stays as it was.
    """
    import nbformat
    import papermill

    notebook, out, given = find_chapter(name), Path(out), given or {}
    check_parameters(notebook, given)
    _require_writable(out)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / out.name
        try:
            papermill.execute_notebook(
                str(notebook), str(draft), given, cwd=str(checkout.root()), kernel_name="python3", progress_bar=progress
            )
        except papermill.PapermillExecutionError as error:
            raise DcilError(
                f"{notebook.name}, cell [{error.exec_count}]: {error.ename}: {error.evalue}. {out} was not written"
            ) from error
        except RuntimeError as error:
            if not str(error).startswith("Kernel died"):  # of nbclient, and while it starts of jupyter_client
                raise
            raise DcilError(
                f"{notebook.name}: {error}. The process that executes the cells ended before they did, as it does when "
                f"memory runs out or the home folder's disk is full; {out} was not written"
            ) from error
        done = nbformat.writes(_tidy(nbformat.read(draft, as_version=4)))
        write_text_atomically(out, done + "\n")
    return out
