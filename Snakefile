# The whole flow, one graph: runs -> records -> executed chapters -> site. Start it with `make book`, or
# directly: snakemake --cores 2 --config preset=smoke. `snakemake -n` says what is stale and why.
#
# Runs are trained only if a grid is given: snakemake --cores 2 --config grid=experiments/quick.yaml
# The target `runs` stops at the grid's records. book/clusters.md shows the same on SLURM.
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from dcil.errors import DcilError
from dcil.lab.book import freshness

GRID = config.get("grid")
RUNS_DIR = config.get("runs_dir", "runs")  # checkpoints and logs
RECORDS_DIR = config.get("records_dir", "records")  # another folder is for trials only: chapters read records/
if "data_dir" in config:
    os.environ["DCIL_DATA"] = str(Path(config["data_dir"]).resolve())

# Parameters that a reader asked for, e.g. {"dataset": "cifar10"}; only chapters that declare such a parameter get it.
ASKED = {k: v for k, v in config.items() if k in ("preset", "dataset") and v and (k, v) != ("preset", "smoke")}
CHAPTERS = sorted(p.stem for p in Path("book").glob("*.ipynb"))
# With `committed`, the site shows the outputs in book/: nothing is executed, and there are no notes of executions.
COMMITTED = bool(config.get("committed"))
SHOWN = "book" if COMMITTED else "_build/executed"
CODE = freshness.matching_files(freshness.CODE)
TEXT = sorted(str(p) for p in Path("book").rglob("*") if p.suffix in (".md", ".bib", ".css", ".svg", ".js", ".yml"))
TESTS = sorted(str(p) for p in Path("tests").rglob("*.py"))
PYTHON = sys.executable
# If the repository that publishes the site is known, its pages get launch buttons.
LAUNCH = (shlex.join([PYTHON, "-m", "dcil.lab.book.launch", "_build/stage", config["repository"],
                      str(config.get("ref", "main"))]) + " && " if config.get("repository") else "")  # fmt: skip

# A job on a cluster evaluates this file again, for the one run or chapter that it was given; it needs no grid.
if GRID and workflow.is_main_process:
    from dcil.lab.sweep import grid

    # The later a run is in the grid's order, the lower its priority; a rule's default priority is 0.
    URGENCY = {run.run_id: -place for place, run in enumerate(grid.read_grid(GRID))}
else:
    URGENCY = {}
WANTED = [f"{RECORDS_DIR}/{run_id}.json" for run_id in URGENCY]
RECORDS = sorted({*map(str, Path(RECORDS_DIR).glob("*.json")), *WANTED})

# A record is history: whatever changes later, no rule may make it again, because Snakemake would delete it first. The
# rule `run` therefore matches only runs that have no record yet. In a submitted job it matches any run: if the record
# has arrived in the meantime, the job finds nothing left to do.
MISSING = [run_id for run_id in URGENCY if not Path(RECORDS_DIR, f"{run_id}.json").exists()]
RUN_ID = ("|".join(map(re.escape, MISSING)) or "(?!)") if workflow.is_main_process else "[^/]+"

# One thread per chapter: several are executed at once, and more threads would only compete for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def chapter_reads(wildcards):
    """Return what a chapter depends on: itself, the code, and the data it reads, including the grid's records."""
    notebook = f"book/{wildcards.name}.ipynb"
    records = RECORDS if "records" in freshness.declared_reads(notebook) else []
    return sorted({*freshness.chapter_inputs(notebook), *records})


def asked(name):
    """Return the parameters to pass to a chapter: those asked for that it has."""
    source = Path(f"book/{name}.ipynb").read_text(encoding="utf-8")
    return {k: v for k, v in ASKED.items() if f'"{k} = ' in source}


def given(wildcards):
    """Return a chapter's parameters as options of `dcil chapter`."""
    return " ".join(f"-p {k} {v}" for k, v in asked(wildcards.name).items())


if ASKED and workflow.is_main_process:  # a misspelt value is refused now, not after the chapters without it
    from dcil.lab.book import chapters

    for name in CHAPTERS:
        try:
            chapters.check_parameters(f"book/{name}.ipynb", asked(name))
        except DcilError as error:
            raise WorkflowError(str(error)) from None


def runs_wanted(wildcards):
    """Return the records of the grid's runs."""
    if not GRID:
        raise WorkflowError("which runs? Name a grid: --config grid=experiments/quick.yaml")
    return WANTED


def minutes(wildcards, resources):
    """Return a run's time limit: ten minutes less than its job's, for starting up and writing the last checkpoint."""
    return f"--minutes {max(1, resources.runtime - 10)}" if resources.get("runtime") else ""


localrules: all, site, runs  # on a cluster: run here, not as jobs


rule all:
    input:
        "_build/html/index.html",
        WANTED,  # also named here, because Snakemake makes intermediate files only if something stale needs them


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
        # update(): a record that someone else wrote in the meantime is not deleted before the job.
        update(f"{RECORDS_DIR}/{{run_id}}.json"),
    wildcard_constraints:
        run_id=RUN_ID,
    params:
        minutes=minutes,
    log:
        f"{RUNS_DIR}/{{run_id}}/queue.log",
    priority: lambda wildcards: URGENCY.get(wildcards.run_id, 0)
    # Snakemake gives a run this many threads, or as many as there are cores, whichever is fewer.
    threads: 4
    resources:
        mem_mb=4000,
    # A job that was killed or ran out of time resumes from its last checkpoint when it is submitted again.
    retries: config.get("retries", 3) if workflow.is_main_process else 0
    # --no-separate: with one process, no child of a killed run lives on and holds the run.
    shell:
        "{PYTHON:q} -m dcil queue {GRID:q} --only {wildcards.run_id} --no-separate {params.minutes} "
        "--runs-dir {RUNS_DIR:q} --records-dir {RECORDS_DIR:q} > {log} 2>&1 "
        "|| {{ code=$?; cat {log}; exit $code; }}"
