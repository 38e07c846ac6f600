# make book | freeze | test | test-fast | test-numerics | verify | reproduce | demo | lab | lint: each sets up .venv by itself. Variables:
# SEED, DATASET, QUICK=1, PYTHON; of reproduce: SEEDS, GRID, JOBS (cores), MISSING=1, DATASETS (commas between), DATA (the real
# data's folder), BACKBONE; of demo: PORT, GALLERY (your own, made by python -m cskt index), DATA, BACKBONE.
SEED ?= 0
SEEDS ?= 3
GRID ?= benchmark
JOBS ?= all
MISSING ?=
DATASETS ?=
DATA ?=
BACKBONE ?=
DATASET ?= SynthPEDES-A
QUICK ?=
PORT ?= 8866
GALLERY ?=
PYTHON ?=
export CSKT_CACHE := $(CURDIR)/.cache

RUN := .venv/bin/python
# Everything that takes long is a rule of workflow/Snakefile.
SNAKEMAKE = $(RUN) -m snakemake -c "$(JOBS)"
SETTINGS = --config dataset="$(DATASET)" seed="$(SEED)" quick="$(filter-out 0,$(QUICK))"
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.PHONY: help book freeze test test-fast test-numerics verify reproduce demo lab lint
help:
	@echo "make book   render the data, run the notebooks, build the book (SEED=0 DATASET=SynthPEDES-A QUICK=)"
	@echo "make freeze   make the executed notebooks the committed ones in book/results"
	@echo "make test   the whole test suite"
	@echo "make test-numerics   its part that depends on the processor, as one without AVX2 computes it"
	@echo "make verify   train CSKT on one domain again and compare with the committed runs (DATASET=SynthPEDES-A)"
	@echo "make reproduce   train what the tables hold, SEEDS=3 each, and fill the tables; DATA=FOLDER takes the three"
	@echo "                 real data sets from there (DATASETS=RSTPReid only that one, BACKBONE=... another CLIP);"
	@echo "                 GRID=components, 'prompt length', ... for the ablations; JOBS=2 uses two cores, not all;"
	@echo "                 MISSING=1 leaves out what has a record already"
	@echo "make demo   search in the browser, on this machine only (PORT=8866); GALLERY=g.db searches your own gallery"
	@echo "make lab    the notebooks in JupyterLab"
	@echo "make test-fast   the tests that neither train nor need a browser"
	@echo "make lint   ruff and its formatter, mypy, import-linter, file lengths"

book: .venv/.stamp
	@$(SNAKEMAKE) book $(SETTINGS)
	@echo "The book: $(CURDIR)/_build/html/index.html"

freeze: .venv/.stamp
	@$(SNAKEMAKE) freeze

test: .venv/.stamp
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then \
	    echo "Installing Debian's chromium for the browser tests ..."; \
	    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } \
	        >/dev/null 2>&1 || echo "chromium could not be installed: the browser tests will be skipped."; \
	fi
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile

test-fast: .venv/.stamp
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist loadfile -m "not slow and not browser"

test-numerics: .venv/.stamp
	@ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile -m numerics

verify: .venv/.stamp
	@$(SNAKEMAKE) verify --config dataset="$(DATASET)"

reproduce: .venv/.stamp
	@$(RUN) -m cskt plan --seeds "$(SEEDS)" --grid "$(GRID)" $(if $(filter-out 0,$(MISSING)),--missing) \
	    $(if $(DATASETS),--datasets "$(DATASETS)") \
	    $(if $(DATA),--data-root "$(DATA)") $(if $(BACKBONE),--backbone "$(BACKBONE)")
	@$(SNAKEMAKE) records
	@$(SNAKEMAKE) results

demo: .venv/.stamp
	@$(RUN) notebooks/demo.py --port "$(PORT)" $(if $(GALLERY),--gallery "$(GALLERY)",--dataset "$(DATASET)" \
	    --seed "$(SEED)" $(if $(DATA),--data-root "$(DATA)") $(if $(BACKBONE),--backbone "$(BACKBONE)"))

lab: .venv/.stamp
	@$(RUN) -m jupyterlab notebooks

lint: .venv/.stamp
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@.venv/bin/lint-imports
	@$(RUN) -m pytest -q tests/test_layout.py

.venv/.stamp: pyproject.toml constraints.txt
	@python=""; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	    if "$$candidate" -c "$(SUPPORTED)" >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "cskt needs Python 3.11, 3.12 or 3.13 and found none; install one, or name it: make PYTHON=/path/to/python3."; \
	    exit 1; \
	fi; \
	if ! "$$python" -c "import ensurepip, venv" >/dev/null 2>&1; then \
	    echo "$$python cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv."; \
	    exit 1; \
	fi; \
	echo "Setting up .venv (a few minutes the first time) ..."; \
	"$$python" -m venv .venv
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[search,book,log,test]"
	@touch $@
