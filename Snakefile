# The whole flow, one graph: records -> executed chapters -> site. Start it with `make book`, or
# directly: snakemake --cores 2 --config preset=smoke. `snakemake -n` says what is stale and why.
import os
import sys
from pathlib import Path

PRESET = config.get("preset", "smoke")
# What a reader asked for on top of the preset, e.g. {"dataset": "cifar10"}; only chapters that
# have such a parameter get it.
ASKED = {k: v for k, v in config.items() if k in ("dataset",) and v}
CHAPTERS = sorted(p.stem for p in Path("book").glob("*.ipynb"))
CODE = sorted(str(p) for p in Path("dcil").rglob("*") if p.suffix in (".py", ".json"))
TEXT = sorted(str(p) for p in Path("book").rglob("*") if p.suffix in (".md", ".bib", ".css", ".svg"))
RECORDS = sorted(map(str, Path("records").glob("*.json")))
PYTHON = sys.executable

# One thread a chapter: several run at once, and a thread each is faster than two fighting for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def records_read(wildcards):
    """The records, for chapters that read them."""
    return RECORDS if "load_all(" in Path(f"book/{wildcards.name}.ipynb").read_text() else []


def given(wildcards):
    """The parameters to pass: the preset unless it is the default, and what was asked for and exists."""
    source = Path(f"book/{wildcards.name}.ipynb").read_text()
    asked = {k: v for k, v in ASKED.items() if f'"{k} = ' in source}
    preset = {} if PRESET == "smoke" or '"preset = ' not in source else {"preset": PRESET}
    return " ".join(f"-p {k} {v}" for k, v in (preset | asked).items())


rule site:
    input:
        chapters=expand("_build/executed/{name}.ipynb", name=CHAPTERS),
        text=["_config.yml", "_toc.yml", *TEXT],
    output:
        "_build/html/index.html",
    log:
        "_build/log/site.log",
    shell:
        "rm -rf _build/stage _build/jupyter-book && mkdir -p _build/stage/book && "
        "cp _config.yml _toc.yml _build/stage/ && "
        "cp -r book/_static book/*.bib book/*.md {input.chapters} _build/stage/book/ && "
        "jupyter-book build _build/stage --path-output _build/jupyter-book -W -n --keep-going > {log} 2>&1 "
        "|| {{ cat {log}; exit 1; }}; "
        "rm -rf _build/html && mv _build/jupyter-book/_build/html _build/html"


rule chapter:
    input:
        "book/{name}.ipynb",
        CODE,
        "requirements.lock",
        records_read,
    output:
        "_build/executed/{name}.ipynb",
    params:
        given=given,
    log:
        "_build/log/{name}.log",
    shell:
        "{PYTHON} -m dcil chapter {wildcards.name} --out {output} {params.given} > {log} 2>&1 || {{ cat {log}; exit 1; }}"
