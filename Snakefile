# The whole flow, one graph: runs -> records -> executed chapters -> site. Start it with `make book`, or
# directly: snakemake --cores 2 --config preset=smoke. `snakemake -n` says what is stale and why.
#
# Only with a grid is anything trained: snakemake --cores 2 --config grid=experiments/quick.yaml
# The target `runs` stops at its records. book/clusters.md shows the same on SLURM.
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from dcil.lab.book import freshness

GRID = config.get("grid")
RUNS_DIR = config.get("runs_dir", "runs")  # checkpoints and logs
RECORDS_DIR = config.get("records_dir", "records")  # another folder is for trials: chapters read records/
if "data_dir" in config:
    os.environ["DCIL_DATA"] = str(Path(config["data_dir"]).resolve())

PRESET = config.get("preset", "smoke")
# What a reader asked for on top of the preset, e.g. {"dataset": "cifar10"}; only chapters that
# have such a parameter get it.
ASKED = {k: v for k, v in config.items() if k in ("dataset",) and v}
CHAPTERS = sorted(p.stem for p in Path("book").glob("*.ipynb"))
# The site may show the outputs that book/ holds instead: nothing is executed then, and no note says when anything was.
COMMITTED = bool(config.get("committed"))
SHOWN = "book" if COMMITTED else "_build/executed"
CODE = freshness.matching_files(freshness.CODE)
TEXT = sorted(str(p) for p in Path("book").rglob("*") if p.suffix in (".md", ".bib", ".css", ".svg", ".js", ".yml"))
TESTS = sorted(str(p) for p in Path("tests").rglob("*.py"))
PYTHON = sys.executable
# Where the site is published from, if that is known: the book that it is built from gets launch buttons.
LAUNCH = (shlex.join([PYTHON, "-m", "dcil.lab.book.launch", "_build/stage", config["repository"],
                      str(config.get("ref", "main"))]) + " && " if config.get("repository") else "")  # fmt: skip

# A job on a cluster reads this file again, for the one run or chapter that it was given; it needs no grid.
if GRID and workflow.is_main_process:
    from dcil.lab.sweep import grid

    # The later in a grid's order, the less urgent; a rule's own priority is 0.
    URGENCY = {run.run_id: -place for place, run in enumerate(grid.read_grid(GRID))}
else:
    URGENCY = {}
WANTED = [f"{RECORDS_DIR}/{run_id}.json" for run_id in URGENCY]
RECORDS = sorted({*map(str, Path(RECORDS_DIR).glob("*.json")), *WANTED})

# A record is history: whatever changes later, no rule may make it again, so that none may delete it.
# The rule `run` therefore matches only runs that have no record yet. A job, once submitted, matches its
# run in any case: if a record has come in the meantime, it finds nothing left to do.
MISSING = [run_id for run_id in URGENCY if not Path(RECORDS_DIR, f"{run_id}.json").exists()]
RUN_ID = ("|".join(map(re.escape, MISSING)) or "(?!)") if workflow.is_main_process else "[^/]+"

# One thread a chapter: several run at once, and a thread each is faster than two fighting for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def chapter_reads(wildcards):
    """What a chapter depends on: itself, the code, and the data that it reads, the grid's records included."""
    notebook = f"book/{wildcards.name}.ipynb"
    records = RECORDS if "records" in freshness.declared_reads(notebook) else []
    return sorted({*freshness.chapter_inputs(notebook), *records})


def given(wildcards):
    """The parameters to pass: the preset unless it is the default, and what was asked for and exists."""
    source = Path(f"book/{wildcards.name}.ipynb").read_text()
    asked = {k: v for k, v in ASKED.items() if f'"{k} = ' in source}
    preset = {} if PRESET == "smoke" or '"preset = ' not in source else {"preset": PRESET}
    return " ".join(f"-p {k} {v}" for k, v in (preset | asked).items())


def runs_wanted(wildcards):
    """The records of the grid's runs."""
    if not GRID:
        raise WorkflowError("which runs? Name a grid: --config grid=experiments/quick.yaml")
    return WANTED


def minutes(wildcards, resources):
    """The time limit of a run: ten minutes less than its job has, to start up and to write the last checkpoint."""
    return f"--minutes {max(1, resources.runtime - 10)}" if resources.get("runtime") else ""


localrules: all, site, runs  # on a cluster: here, not in a job


rule all:
    input:
        "_build/html/index.html",
        WANTED,  # named here too: of what lies between, Snakemake makes only what something stale needs


rule site:
    input:
        chapters=expand(f"{SHOWN}/{{name}}.ipynb", name=CHAPTERS),
        notes=[] if COMMITTED else expand("_build/executed/{name}.json", name=CHAPTERS),
        records=RECORDS,  # the pages link to them
        text=["_config.yml", "_toc.yml", "docutils.conf", *TEXT, *CODE, *TESTS],  # docstrings, and tests that pages show
    output:
        "_build/html/index.html",
    params:
        launch=LAUNCH,
    log:
        "_build/log/site.log",
    shell:
        "rm -rf _build/stage _build/jupyter-book && mkdir -p _build/stage && "
        "cp _config.yml _toc.yml _build/stage/ && cp -r book tests _build/stage/ && "
        "cp {input.chapters} _build/stage/book/ && "
        "{PYTHON:q} -m dcil status --executed {SHOWN} --out _build/stage/book/status-table.txt && "
        "{params.launch}"
        "jupyter-book build _build/stage --path-output _build/jupyter-book -W -n --keep-going > {log} 2>&1 "
        "|| {{ cat {log}; exit 1; }}; "
        "rm -rf _build/html && mv _build/jupyter-book/_build/html _build/html"


rule chapter:
    input:
        chapter_reads,
    output:
        notebook="_build/executed/{name}.ipynb",
        note="_build/executed/{name}.json",
    params:
        given=given,
    resources:
        mem_mb=4000,
    log:
        "_build/log/{name}.log",
    shell:
        "{PYTHON:q} -m dcil chapter {wildcards.name} --out {output.notebook} {params.given} > {log} 2>&1 || {{ cat {log}; exit 1; }}"


rule runs:
    input:
        runs_wanted,


rule run:
    output:
        # update: a record that someone else wrote in the meantime is not deleted before the job.
        update(f"{RECORDS_DIR}/{{run_id}}.json"),
    wildcard_constraints:
        run_id=RUN_ID,
    params:
        minutes=minutes,
    log:
        f"{RUNS_DIR}/{{run_id}}/queue.log",
    priority: lambda wildcards: URGENCY.get(wildcards.run_id, 0)
    # Snakemake gives a run as many threads as this, or as there are cores.
    threads: 4
    resources:
        mem_mb=4000,
    # A job that is killed, or out of time, goes on from its last checkpoint when it is submitted again.
    retries: config.get("retries", 3) if workflow.is_main_process else 0
    # One process: nothing of a killed run lives on and holds it.
    shell:
        "{PYTHON:q} -m dcil queue {GRID:q} --only {wildcards.run_id} --no-separate {params.minutes} "
        "--runs-dir {RUNS_DIR:q} --records-dir {RECORDS_DIR:q} > {log} 2>&1 "
        "|| {{ code=$?; cat {log}; exit $code; }}"
