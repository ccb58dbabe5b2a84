# Two commands do everything on a machine that has python3 and make:
#   make demo    play a whole linking, from nothing
#   make test    run the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Servers are started hundreds of times in the tests: each would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo run test lint types layers docs sbom wheel audit check chart-tools manifests image-test \
	prove prove-short bench bench-scale fuzz fuzz-api timing lock clean

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## make .venv with everything that is pinned in requirements-dev.lock

# Compiling every file of every dependency beforehand takes longer than all of its imports.
$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("GrantServer needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "the venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install  ## play a whole linking: server, token, two sites, a refusal
	@$(BIN)/python demo/demo.py

run: install  ## start the server on its embedded default, data in ./grantserver-data
	@$(BIN)/grantserver serve

test: install  ## run all tests
	$(BIN)/pytest -n auto

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

layers: install
	$(BIN)/lint-imports

sbom: install  ## write the bill of materials and the licences into build/release; fails for one that is not accepted
	$(BIN)/python -m release build/release

wheel: install  ## build the wheel into dist/; the same commit gives the same bytes
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build -t wheel -d dist

# A tool with many dependencies, in an environment of its own. It asks a source of advisories.
audit:  ## ask whether known weaknesses are in what is pinned; 3 when there is nobody to ask
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.lock
	$(PYTHON) release/audit.py build/audit/bin/pip-audit requirements.lock requirements-build.lock

docs: install  ## make a site of docs/ in build/site; warnings are errors
	$(BIN)/sphinx-build -W --keep-going -n -q -b html -d build/doctrees docs build/site

check: install  ## everything that must be green before a change lands
	@$(MAKE) --no-print-directory -j2 --output-sync lint types layers sbom
	@$(MAKE) --no-print-directory test fuzz-api prove-short

chart-tools: install  ## install what the tests of chart and image need: 250 MB
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements-chart.lock

manifests: chart-tools  ## write anew what is made for the chart, and the plain manifests
	$(BIN)/python -m helm --manifests

image-test: chart-tools  ## build the image without a daemon, and redeem with it; needs root, buildah, debootstrap
	GRANTSERVER_TEST_IMAGE=1 $(BIN)/pytest -n0 tests/deploy/test_image.py

# ATTEMPTS, KILLS and DATABASE (sqlite, postgresql, both or a URL) for all databases together;
# what else `python -m prove --help` shows goes into ARGS.
ATTEMPTS ?= 1000000
KILLS ?= 1000
DATABASE ?= both

prove: install  ## prove that a grant of N gives exactly N redemptions, whatever races or dies
	@$(BIN)/python -m prove --attempts $(ATTEMPTS) --kills $(KILLS) --database '$(DATABASE)' $(ARGS)

prove-short: install
	@$(BIN)/python -m prove --attempts 20000 --kills 40 --database '$(DATABASE)' $(ARGS)

bench: install  ## measure redemptions per second against bare TLS handshakes, in one run
	$(BIN)/python bench/run.py $(ARGS)

bench-scale: install  ## measure whether a store of a million grants is slower than one of a thousand
	$(BIN)/python bench/scale.py $(ARGS)

# e.g. make fuzz MINUTES=30; what else `python -m fuzz --help` shows goes into ARGS.
MINUTES ?= 5
fuzz: install  ## try everything that reads strangers' input with damaged input, for some minutes
	@$(BIN)/python -m fuzz --minutes $(MINUTES) $(ARGS)

fuzz-api: install  ## ask the admin API for what its description allows, and for all else
	@$(BIN)/python -m fuzz.api $(ARGS)

timing: install  ## measure whether the time of a refusal tells anything about the right code
	@$(BIN)/python bench/timing.py $(ARGS)

LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --upgrade -q

lock:  ## pin the dependencies anew (needs uv)
	$(LOCK) --extra tracing -o requirements.lock
	$(LOCK) --extra tracing --group dev -o requirements-dev.lock
	$(subst pyproject.toml ,,$(LOCK)) --group chart -o requirements-chart.lock
	$(subst pyproject.toml ,,$(LOCK)) --group build -o requirements-build.lock
	$(subst pyproject.toml ,,$(LOCK)) --group audit -o requirements-audit.lock

clean:  ## remove what the targets above have made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
