"""The files around the code agree with each other and with the code."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dcil
from tools import lock

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = sorted(p for p in (ROOT / "dcil").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.M))
GUIDES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "book/running.md", "book/clusters.md")
PINS = lock.pins((ROOT / "requirements.lock").read_text())
# What training and records must do without.
OPTIONAL = ("torchvision", "sklearn", "scipy", "pandas", "matplotlib", "seaborn", "papermill", "nbformat", "IPython",
            "jinja2", "markupsafe", "pydantic", "PIL", "onnx", "plotly")  # fmt: skip


def named(path):
    """Return a path as a reader would write it, for test names."""
    return path.relative_to(ROOT).as_posix()


def made(text):
    """Return the targets that a script gives to `make`."""
    return set(re.findall(r"(?:^|\s)make ([a-z][a-z0-9-]*)", text, re.M))


def code(text):
    """Return what a guide shows as code, its blocks and what stands between backticks, one piece per line."""
    pieces = re.findall(r"^```.*?\n(.*?)^```|`([^`\n]+)`", text, re.M | re.S)
    return "\n".join(block or words for block, words in pieces)


def anchors(path):
    """Return the anchors that a renderer makes of a guide's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def imported(path):
    """Return the modules that a file imports, wherever in the file; `from a import b` counts as a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


# --- the environment


def test_lock_is_in_order():
    """Every line pins one version, no package twice, sorted as `make lock` writes them, and none of CUDA."""
    names = [pin.partition("==")[0] for pin in PINS]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in PINS)
    assert names == sorted({canonicalize_name(name) for name in names})
    assert [name for name in names if re.match(r"nvidia|cuda|triton", name)] == []


def test_conda_environment_is_the_lock():
    """environment.yml is python, pip and the lock, line by line."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert (environment["name"], environment["channels"]) == ("dcil", ["conda-forge"])
    assert environment["dependencies"] == ["python=3.11", "pip", {"pip": PINS}]


@pytest.mark.parametrize("driver", [True, False])
def test_make_takes_pytorch_without_cuda_where_there_is_no_driver(tmp_path, driver):
    """PyTorch's index of CPU builds is asked for PyTorch alone, and not on a machine with an NVIDIA driver."""
    for name in ("make", "grep", "python3", *(["nvidia-smi"] if driver else [])):
        (tmp_path / name).symlink_to(shutil.which(name) or shutil.which("true"))
    done = subprocess.run(
        ["make", "-n", "-W", "pyproject.toml", ".venv/ready"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    pytorch, rest, ours = [line for line in done.stdout.splitlines() if "pip install" in line]
    assert ("download.pytorch.org/whl/cpu" in pytorch) == (not driver) and "^torch" in pytorch
    assert "download.pytorch.org" not in rest + ours
    # Before 4.3, make ran what needs no shell by itself, and found no program named `command`.
    calls = re.findall(r"\$\(shell ([^)]*)\)", (ROOT / "Makefile").read_text())
    assert calls and all(re.search(r"[<>|;&]", call) for call in calls)


def test_make_refuses_an_older_python(tmp_path):
    """It says which Python is needed, as on a Mac, whose python3 is 3.9, and leaves no environment behind."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    code = "import sys; sys.version_info = (3, 9, 6); exec(sys.argv[1])"
    older = tmp_path / "python3"
    older.write_text(f"#!/bin/sh\n[ \"$1\" = -c ] || mkdir .venv\nexec '{sys.executable}' -c '{code}' \"$2\"\n")
    older.chmod(0o755)
    words = ["make", f"PYTHON={older}", ".venv/ready"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and "Python 3.11 or newer is needed" in done.stderr, done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_help_lists_every_target(tmp_path):
    """Those that the Makefile describes, and with awk alone: sed and expand of a Mac are not those of Linux."""
    for name in ("make", "awk"):
        (tmp_path / name).symlink_to(shutil.which(name))
    words = ["make", "--no-print-directory", "help"]
    done = subprocess.run(words, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    described = re.findall(r"^([\w-]+):.*## (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert [line.split(maxsplit=1) for line in done.stdout.splitlines()] == [list(pair) for pair in described]


def test_git_changes_no_line_ends(tmp_path):
    """A clone by a Git that writes CRLF, as on Windows, holds what make and the shell under WSL can read."""

    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=true")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    for name in (".gitattributes", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    git("init", "-q")
    git("add", ".")
    (tmp_path / "Makefile").unlink()
    git("checkout", "--", "Makefile")
    assert b"\r" not in (tmp_path / "Makefile").read_bytes()


# The executor for SLURM is of no use to CI, so not in its lock.
LOCKED = [group for group in PYPROJECT["project"]["optional-dependencies"] if group != "cluster"]


@pytest.mark.parametrize("group", ["dependencies", *LOCKED])
def test_lock_satisfies_pyproject(group):
    """Every dependency that pyproject.toml names is in the lock, at a version inside its range."""
    project = PYPROJECT["project"]
    locked = {canonicalize_name(name): version for name, version in (pin.split("==") for pin in PINS)}
    for text in project["dependencies"] if group == "dependencies" else project["optional-dependencies"][group]:
        wanted = Requirement(text)
        if wanted.name == "dcil":
            assert wanted.extras <= set(project["optional-dependencies"]), text
            continue
        version = locked.get(canonicalize_name(wanted.name))
        assert version and wanted.specifier.contains(version, prereleases=True), f"{text}: the lock has {version}"


# Whose imports, and the extras of which they may be.
IMPORTING = {
    "dcil": set(PYPROJECT["project"]["optional-dependencies"]) - {"test", "workflow", "cluster"},
    "tools": {"test"},
    "benchmarks": {"test"},
    "tests": {"test"},
}


def declared(groups):
    """Return the distributions that the dependencies and these extras name, directly or through other extras."""
    project, found, groups = PYPROJECT["project"], set(), set(groups)
    texts = [*project["dependencies"], *(t for g in groups for t in project["optional-dependencies"][g])]
    for wanted in map(Requirement, texts):
        found |= declared(wanted.extras - groups) if wanted.name == "dcil" else {canonicalize_name(wanted.name)}
    return found


@pytest.mark.parametrize("folder", IMPORTING)
def test_every_import_is_declared(folder):
    """Every import is of Python, ours, or of a package that pyproject.toml names; none is merely transitive."""
    modules = {m.partition(".")[0] for path in (ROOT / folder).rglob("*.py") for m in imported(path)}
    ours, distributions = {"dcil", "tools", "benchmarks", "tests"}, packages_distributions()
    theirs = sorted(modules - set(sys.stdlib_module_names) - ours)
    allowed = declared(IMPORTING[folder])
    missing = [m for m in theirs if not {canonicalize_name(d) for d in distributions.get(m, [m])} & allowed]
    assert theirs and missing == []


def test_the_sites_extensions_are_declared():
    """What Sphinx loads is ours, of Sphinx or Jupyter Book itself, or declared."""
    extensions = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]["extensions"]
    base = requires("jupyter-book")
    known = declared({"book"}) | {canonicalize_name(Requirement(text).name) for text in base if "extra" not in text}
    distributions = packages_distributions()
    theirs = {name.partition(".")[0] for name in extensions} - {"dcil", "sphinx"}
    missing = [name for name in theirs if canonicalize_name(distributions.get(name, [name])[0]) not in known]
    assert theirs and missing == []


def test_one_version():
    """pyproject.toml, dcil, CITATION.cff and the changelog's first heading name the same version."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[?(\d[\w.]*)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert PYPROJECT["project"]["version"] == dcil.__version__ == citation["version"] == newest.group(1)


def test_a_commit_is_checked_as_in_ci():
    """Pre-commit takes the ruff of the lock, beside mypy and two checks of files."""
    repos = {repo["repo"]: repo for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]}
    ruff = repos["https://github.com/astral-sh/ruff-pre-commit"]
    assert f"ruff=={ruff['rev'].removeprefix('v')}" in PINS
    hooks = {hook["id"] for repo in repos.values() for hook in repo["hooks"]}
    assert hooks == {"ruff-check", "ruff-format", "mypy", "check-yaml", "end-of-file-fixer"}


# --- the code


def plan():
    """Return the paths of the layout in CONTRIBUTING.md, top to bottom, with the files named beside a folder."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    layout = re.search(r"## Layout\n.*?```text\n(.*?)```", text, re.S).group(1)
    rooms, parents = [], []
    for line in layout.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        if depth < 10:  # else it goes on from the line above
            names = re.match(r" *((?:[\w./]+(?: |$))*)", line).group(1).split()
            rooms += ["".join(parents[:depth]) + name for name in names]
            parents = parents[:depth] + names[-1:]
        folder = "".join(parents)
        if folder.endswith("/"):
            inside = [f"{word}.py" for word in re.findall(r"\b[a-z_]+\b", line[line.find("  ", 2) :])]
            rooms += [folder + name for name in inside if (ROOT / folder / name).exists()]
    return rooms


def test_floor_plan():
    """Every path that CONTRIBUTING.md describes is there, and every file of dcil is described."""
    rooms = plan()
    assert [room for room in rooms if not (ROOT / room).exists()] == []
    assert {named(path) for path in MODULES if path.name != "__init__.py"} - set(rooms) == set()


def test_no_import_goes_back_up():
    """What stands higher in the layout imports nothing that stands lower, so there is no cycle."""

    def room(place):
        """The file or folder of dcil, in the lab one further down, that a path lies in."""
        return "/".join(place.split("/")[: 3 if place.startswith("dcil/lab/") else 2])

    floors = list(dict.fromkeys(room(path) for path in plan() if path.startswith("dcil/") and path != "dcil/"))
    upwards = []
    for path in MODULES:
        here = room(named(path))
        for module in imported(path):
            place = module.replace(".", "/")
            there = next((f for f in (room(place), room(place + ".py")) if f in floors), None)
            if here in floors and there and floors.index(there) > floors.index(here):
                upwards.append(f"{named(path)} imports {module}")
    assert upwards == []


@pytest.mark.parametrize("name", ["rules", "masks", "losses"])
def test_pure_modules_import_nothing_of_ours(name):
    """Only the error is shared."""
    ours = {module for module in imported(ROOT / "dcil" / f"{name}.py") if module.split(".")[0] == "dcil"}
    assert {module for module in ours if not module.startswith("dcil.errors")} == set()


def test_the_lab_is_imported_by_nobody():
    """Within dcil only the command line and the lab itself import dcil.lab."""
    for path in MODULES:
        inside = "lab" in path.parts or "cli" in path.parts
        assert inside or not any(f"{module}.".startswith("dcil.lab.") for module in imported(path)), path


def test_a_name_of_the_lab_says_one_thing():
    """No two functions of its modules share a name, but for those that Sphinx or the command line calls."""
    names = Counter()
    for path in (ROOT / "dcil" / "lab").rglob("*.py"):
        functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        names.update(name for name in functions if not name.startswith("_"))
    assert {name for name, count in names.items() if count > 1} <= {"setup", "main"}


@pytest.mark.parametrize("folder", ["dcil", "tools", "benchmarks", ".ci"])
def test_no_text_depends_on_the_locale(folder):
    """Whatever reads or writes a text file says that it is UTF-8: Windows, and old locales, have other defaults."""
    silent = []
    for path in (ROOT / folder).rglob("*.py"):
        calls = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
        for call in calls:
            modes = {word.value for word in ast.walk(call) if isinstance(word, ast.Constant)}
            named_so = getattr(call.func, "attr", getattr(call.func, "id", ""))
            opens = named_so == "open" and ast.unparse(call.func) != "os.open" and modes & {"r", "w", "a", "a+"}
            if (named_so in ("read_text", "write_text") or opens) and "encoding" not in {k.arg for k in call.keywords}:
                silent.append(f"{named(path)}:{call.lineno}")
    assert silent == []
    assert "read_text()" not in (ROOT / "Snakefile").read_text()  # which is not quite Python


@pytest.mark.parametrize("words", [["methods"], ["queue", "experiments/quick.yaml", "--status"], ["records", "check"]])
def test_training_needs_only_four_packages(words):
    """Lists, a grid's queue and records need only torch, numpy, PyYAML and tqdm, and what these require."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import dcil, dcil.__main__
from dcil.cli.main import main
sys.exit(main({words}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- the book


def test_contents_list_every_page_once():
    """_toc.yml and book/ hold the same chapters and pages."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    pages = [*NOTEBOOKS, *(ROOT / "book").rglob("*.md")]
    assert sorted(listed) == sorted(named(path.with_suffix("")) for path in pages)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_notebook_is_committed_executed(path):
    """It has one parameter cell and unique ids, and every code cell was executed in order without an error."""
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    ids = [cell["id"] for cell in cells]
    assert len(set(ids)) == len(ids)
    # nbval does not compare cells without a count, so an unexecuted notebook would pass there.
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run `make refresh`"
    assert [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"] == []


# --- what people and CI type


def test_ci_runs_the_tests_of_the_readme():
    """The README's test command is what .ci/run and the workflow run."""
    assert "make test" in (ROOT / "README.md").read_text()
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert re.search(r"^ *- run: make test$", (ROOT / ".github" / "workflows" / "test.yml").read_text(), re.M)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_folded_code_says_what_it_does(path):
    """Folded code has a title of its own, else the page would show "Show code cell source"."""
    for cell in json.loads(path.read_text())["cells"]:
        if "hide-input" in cell["metadata"].get("tags", []):
            assert cell["metadata"].get("mystnb", {}).get("code_prompt_show"), cell["id"]


@pytest.mark.parametrize("path", [*NOTEBOOKS, *(ROOT / "book").glob("*.md")], ids=named)
def test_what_is_said_of_a_command_stands_above_it(path):
    """Beyond 80 columns, a comment at the end of a line would wrap below the command."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        text = "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    assert [line for block in blocks for line in block.splitlines() if " # " in line and len(line) > 80] == []


@pytest.mark.parametrize("guide", GUIDES)
def test_guides_name_what_exists(guide):
    """Targets of make, commands of dcil and files that a guide names are there."""
    text, folder = (ROOT / guide).read_text(), (ROOT / guide).parent
    assert made(code(text)) and made(code(text)) <= TARGETS
    prose = re.sub(r"`[^`\n]+`", "", text)
    links = [link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", prose) if "://" not in link]
    assert [path for path, _, _ in links if path and not (folder / path).exists()] == []
    linked = [(folder / path if path else ROOT / guide, anchor) for path, _, anchor in links if anchor]
    assert [anchor for path, anchor in linked if anchor not in anchors(path)] == []


def test_the_picture_of_the_site_is_light():
    """README.md shows one picture, with a description."""
    (alt, path), *more = re.findall(r"!\[([^]]*)\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(alt) > 40 and not more and (ROOT / path).stat().st_size <= 200 * 2**10


def test_guides_name_commands_that_exist():
    """Every `python -m dcil COMMAND` of the guides is a command."""
    named_there = {c for g in GUIDES for c in re.findall(r"python -m dcil ([a-z]+)", (ROOT / g).read_text())}
    done = subprocess.run([sys.executable, "-m", "dcil", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train" in named_there
    assert [c for c in sorted(named_there) if not re.search(rf"\b{c}\b", done.stdout)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_workflow(path):
    """Valid YAML with jobs whose steps run something or use a commit, and only targets that the Makefile has."""
    workflow = yaml.safe_load(path.read_text())
    assert True in workflow, "YAML 1.1 reads the key `on` as true"
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert steps and all("run" in step or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]) for step in steps)
    scripts = "\n".join(step.get("run", "") for step in steps)
    assert made(scripts) <= TARGETS
    named_there = {Path(word) for word in re.findall(r"\.ci/[\w.]+", scripts)}
    assert [script for script in named_there if not (ROOT / script).exists()] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_a_workflow_trusts_nobody(path):
    """Values reach the shell as variables; jobs that run packages may not write and keep no credentials."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        writes = job.get("permissions", {}).get("contents") == "write"
        scripts = "\n".join(step.get("run", "") for step in job["steps"])
        assert "${{" not in scripts
        assert writes == (path.name == "site.yml" and name == "publish")
        assert not writes or not re.search(r"\bmake\b|\bpip\b", scripts)
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert checkouts and (writes or all(step["with"]["persist-credentials"] is False for step in checkouts))


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_a_request_writes_no_cache_that_others_read(path):
    """A workflow that runs for requests with this repository's rights has no cache, which publishing would share."""
    workflow = yaml.safe_load(path.read_text())
    if "pull_request_target" in workflow[True]:
        assert "cache" not in json.dumps(workflow["jobs"])


def test_a_request_does_not_bring_its_own_check(tmp_path):
    """The steps of records.yml execute nothing of a request that rewrites the whole check.

    They read the request's claims, and find a record that it removes.
    """
    base, change, ran = tmp_path / "base", tmp_path / "base" / "change", tmp_path / "ran"

    def git(folder, *words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)

    def play():
        workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "records.yml").read_text())
        (job,) = workflow["jobs"].values()
        for step in (step for step in job["steps"] if "run" in step and "pip install" not in step["run"]):
            where = base / step.get("working-directory", ".")
            env = os.environ | workflow.get("env", {}) | job.get("env", {}) | {"BASE": "main", "PYTHONPATH": str(ROOT)}
            env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
            done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=where, env=env, capture_output=True, text=True)
            if done.returncode:
                return step["name"], done.stderr
        return "none", ""

    record = min((ROOT / "records").glob("*.json"))
    copied = {path: (ROOT / path).read_text() for path in (".ci/history.py", named(record))}
    texts = copied | {"_toc.yml": "", "book/claims.yml": "[]", "records/README": "stays when the record goes"}
    for name, text in texts.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(text)
    git(base, "init", "-q", "-b", "main")
    git(base, "add", ".")
    git(base, "commit", "-qm", "base")
    git(tmp_path, "clone", "-q", "base", "base/change")
    modules = ("sitecustomize", "usercustomize", "yaml", "json", "re", "dcil/__init__", "dcil/__main__")
    for name in (".ci/history", *(f"{folder}{module}" for folder in ("", ".ci/") for module in modules)):
        (change / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (change / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\nraise SystemExit(0)\n")
    (change / "book" / "claims.yml").write_text("{}")
    git(change, "add", ".")
    git(change, "commit", "-qm", "a check that finds nothing, and claims that are none")
    failed, said = play()
    assert failed.startswith("the verdicts") and "claims.yml holds dict; it must be a list" in said
    git(change, "rm", "-q", named(record))
    git(change, "commit", "-qm", "one less")
    failed, said = play()
    assert failed.startswith("a record is history") and f"{named(record)}' was there already" in said
    assert not ran.exists()


def test_a_tags_name_executes_nothing(tmp_path):
    """make neither expands a tag's name nor drops the quotes around it."""
    given = {"REPOSITORY": "x", "REF": f"v1$(shell touch {tmp_path}/make);touch {tmp_path}/shell;'\"`$HOME`"}
    done = subprocess.run(
        ["make", "-n", "-o", ".venv/ready", "book"],
        cwd=ROOT,
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'repository="$REPOSITORY" ref="${REF:-main}"' in done.stdout
    assert not list(tmp_path.iterdir())


def test_workflows_are_there():
    """One tests, one with other releases; one publishes, one checks incoming records, one looks for dead links."""
    assert [path.name for path in WORKFLOWS] == ["links.yml", "records.yml", "releases.yml", "site.yml", "test.yml"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=named)
def test_issue_form(path):
    """GitHub shows a form only if it has a name, a description, and fields with ids of their own."""
    form = yaml.safe_load(path.read_text())
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert form["name"] and form["description"] and len(set(ids)) == len(ids) > 0
    assert all(field["attributes"] for field in form["body"])
