# make demo and make test do everything, from a bare checkout on: environment, pinned packages, and, on Debian and Ubuntu, PostGIS.
# pip's own variables are honoured (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, …); PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test test-faults lint bench bench-quick bench-page bench-peers docs clean ready postgis
.DEFAULT_GOAL := help

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

demo: $(READY) postgis  ## train a road model on a real scene, straight out of PostGIS
	$(BIN)/pgtiles demo $(DEMO)

test: ready  ## all tests, against servers that they start themselves (or PGTILES_TEST_URL, one test after the other)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(if $(PGTILES_TEST_URL),,-n 2 --dist loadfile --no-loadscope-reorder)

test-faults: ready  ## kill, cut and starve the database while it is read, and print what happened; servers of its own
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: ready  ## tiles per second, beside TorchGeo (make bench-peers), rasterio and SQL by hand; BENCH='--works baked' …
	$(BIN)/python benchmarks/bench.py $(BENCH)

bench-page: bench  ## the same, and docs/benchmark.md written from its figures
	$(BIN)/python benchmarks/page.py build/bench/bench.json docs/benchmark.md

bench-quick: $(READY) postgis  ## the same in two minutes: do all contestants' pixels agree?
	$(BIN)/python benchmarks/bench.py --quick $(BENCH)

bench-peers: .venv-peers/ready  ## TorchGeo in an environment of its own, 1.6 GB, for make bench

docs: $(READY)  ## the documentation site, into build/site; open its index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## forget the environment and whatever was built
	rm -rf .venv .venv-peers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pgtiles needs Python 3.11 or newer; found $$($(PYTHON) --version). Name one: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "This Python can't make environments: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

.venv-peers/ready: benchmarks/peers-constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -c benchmarks/peers-constraints.txt torchgeo torchvision requests
	@touch .venv-peers/ready

ready: $(READY)  ## the environment, and the programs that tests need
	@PYTHON=$(BIN)/python ./.ci/postgis tests

postgis: $(READY)
	@PYTHON=$(BIN)/python ./.ci/postgis
