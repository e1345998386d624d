# Two front doors: `make book` and `make test`. Everything else: `make help`.
PYTHON ?= python3
CORES  ?= 2
PRESET ?= smoke
RESOLUTION ?= lowest-direct
BIN     = .venv/bin
# Not $(abspath), which splits a name at its spaces.
export DCIL_DATA := $(if $(DATA),$(if $(filter /%,$(firstword $(DATA))),,$(CURDIR)/)$(DATA),$(or $(DCIL_DATA),$(CURDIR)/data))

.PHONY: help book site runs test test-avx2 test-releases lint format chapter serve refresh readme offline print summary bench picture lock clean
.DEFAULT_GOAL := help

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-16s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# PyTorch's own index has builds without CUDA, gigabytes smaller, which pip prefers to PyPI's. It is used only for
# PyTorch, and only without an NVIDIA driver; if it cannot be reached, PyPI's build will do. The redirection makes every
# make start a shell: `command` is a part of the shell, and before 4.3 make looked for a program of that name.
CPU_BUILDS = $(if $(shell command -v nvidia-smi 2>/dev/null),,--retries 1 --extra-index-url https://download.pytorch.org/whl/cpu)
PIP        = $(BIN)/python -m pip install -q --disable-pip-version-check

TOO_OLD    = Python 3.11 or newer is needed, and $(PYTHON) is older; name another, e.g. make PYTHON=python3.12

# The environment: exact versions from the lock, then dcil itself, editable.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("$(TOO_OLD)")'
	$(PYTHON) -m venv .venv
	$(PIP) --no-deps $(CPU_BUILDS) $$(grep '^torch' requirements.lock)
	$(PIP) -r requirements.lock
	$(PIP) --no-deps -e .
	touch $@

SNAKEMAKE = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --cores $(CORES)

# REPOSITORY and REF reach the shell as variables: a tag's name may hold what make or the shell would execute.
book: .venv/ready  ## execute stale chapters and build the site: PRESET=smoke|quick|paper DATASET=.. DATA=folder
	$(SNAKEMAKE) --quiet rules progress --config preset=$(PRESET) $(if $(DATASET),dataset=$(DATASET)) \
	  $(if $(value REPOSITORY),repository="$$REPOSITORY" ref="$${REF:-main}")
	@echo "the site is _build/html/index.html; look at it with: make serve"

site: .venv/ready  ## build the site from the outputs that book/ holds: executes nothing, takes a minute
	$(SNAKEMAKE) --quiet rules progress --config committed=1

runs: .venv/ready  ## train a grid's runs that have no record yet: GRID=experiments/quick.yaml DATA=folder
	$(SNAKEMAKE) runs --quiet rules --keep-going --keep-incomplete --config grid=$(GRID)

chapter: .venv/ready  ## execute one chapter: NAME=03-dual-path-training P="-p sparsity 0.95"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m dcil chapter $(NAME) $(P)

serve: book  ## build the site and show it at http://localhost:8000
	$(BIN)/python -m http.server 8000 --directory _build/html

offline: book  ## zip the whole site, _build/dcil-measured.zip: unpack it and open html/index.html
	$(BIN)/python -c "import shutil; shutil.make_archive('_build/dcil-measured', 'zip', '_build', 'html')"

print: book  ## print the whole book as one PDF with Chromium, _build/dcil-measured.pdf
	$(BIN)/python -m tools.booklet

summary: book  ## write the book on one page and ten slides into _build/html: as HTML, and as PDF if there is Chromium
	$(BIN)/python -m dcil.lab.book.summary _build/html

lint: .venv/ready  ## check style, format and types, also of notebooks
	$(BIN)/ruff check benchmarks book dcil tests tools
	$(BIN)/ruff format --check --quiet benchmarks book dcil tests tools
	$(BIN)/mypy

format: .venv/ready  ## format code and notebooks with ruff
	$(BIN)/ruff check --fix-only --quiet benchmarks book dcil tests tools
	$(BIN)/ruff format --quiet benchmarks book dcil tests tools

# OMP_WAIT_POLICY=passive: threads that spin while they wait would take cores from other tests.
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(CORES)
# nbval executes every chapter, so the site is built from the committed outputs. Workers get whole files in the order
# given: chapters and browser tests come first, so that no long file is left for one worker at the end.
WHOLE_FILES = --dist loadfile --no-loadscope-reorder --nbval-lax --nbval-cell-timeout 600
test: lint site  ## run all tests: code, notebooks, and the site in a browser
	$(PYTEST) $(WHOLE_FILES) book tests

# Most desktops and laptops have AVX2 only: they round differently, and emulate bf16. A processor with AVX-512 imitates them.
test-avx2: export ATEN_CPU_CAPABILITY = avx2
test-avx2: export ONEDNN_MAX_CPU_ISA = AVX2
test-avx2: export MKL_ENABLE_INSTRUCTIONS = AVX2
test-avx2: .venv/ready  ## run the tests that depend on the processor as on one without AVX-512 and bf16
	$(PYTEST) --dist load \
	  tests/test_conformance.py tests/test_export.py tests/test_engine.py tests/test_plain_loop.py tests/test_train.py
	$(BIN)/python -m dcil train --preset smoke --epochs 2 --device cpu --quiet --no-resume --runs-dir _build/avx2

# The lock fixes one release of each package; users without it have others.
test-releases: BIN = _build/$(RESOLUTION)/bin
test-releases:  ## test the code and the chapters with the oldest releases allowed; RESOLUTION=highest: the newest
	$(PYTHON) -m venv _build/$(RESOLUTION)
	$(PIP) uv
	$(BIN)/uv --no-config pip install -q --python $(BIN)/python --resolution $(RESOLUTION) -e '.[test]'
	$(PYTEST) $(WHOLE_FILES) book tests/test_*.py tests/lab

refresh: readme  ## execute the chapters at preset smoke and write their outputs into book/, to be committed
	for f in book/*.ipynb; do PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 \
	  $(BIN)/python -m dcil chapter $$f --out $$f || exit 1; done

readme: .venv/ready  ## rewrite the results in README.md from claims and records
	$(BIN)/python -m dcil.lab.book.readme

bench: .venv/ready  ## measure speed and memory as ratios, into a CSV in benchmarks/results: ARGS="--only step"
	$(BIN)/python -m benchmarks $(ARGS)

picture: site  ## take the picture of the site that README.md shows
	$(BIN)/python -m tools.picture

lock: .venv/ready  ## rewrite requirements.lock and environment.yml from pyproject.toml: ARGS=--upgrade
	$(BIN)/python -m tools.lock $(ARGS)

clean:  ## remove build products; runs, data and the environment stay
	rm -rf _build .snakemake
