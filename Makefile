.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export NO_ALBUMENTATIONS_UPDATE := 1

SCALE ?= mini
# The folder that holds the data sets.
DATA ?=
DATA_ROOT = $(if $(DATA),data_root=$(DATA))

.PHONY: help install demo test test-quick lint bench bench-ops bench-loading bench-policy profile check-data tiles count table1 table2 table3 table4 table5 table6 study rates controls docs site clean

help:  ## list the targets
	@grep -hE '^[a-zA-Z0-9_ -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([^:]+):.*## (.*)/  make \1\t\2/' | expand -t 36

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else f"sapnet needs Python 3.11 or newer, this is {v[0]}.{v[1]}: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(STAMP)  ## set up .venv with the pinned packages

demo: $(STAMP)  ## train a small network on the embedded data, evaluate it, write a picture (8 minutes)
	$(BIN)/python -m sapnet demo

test: $(STAMP) lint  ## all tests, two at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

test-quick: $(STAMP)  ## the tests without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not slow'

lint: $(STAMP)  ## the linter, types, and whether packages are declared and imported alike
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/deptry --no-ansi sapnet benchmarks
	$(BIN)/deptry --no-ansi --exclude .venv --ignore DEP002,DEP004 tests

bench: $(STAMP)  ## networks side by side: operations, time against the floor, peak memory; a step of the small one (14 minutes)
	$(BIN)/python -m benchmarks.networks
	$(BIN)/python -m benchmarks.mini_step

profile: $(STAMP)  ## where the time of a forward pass goes, beside the multiply-adds: make profile models="NU DMPHN_NU"
	$(BIN)/python -m benchmarks.profile $(if $(models),--models $(models))

bench-ops: $(STAMP)  ## time and memory of the filter operator against a plain convolution
	$(BIN)/python -m benchmarks.ops

bench-loading: $(STAMP)  ## images per second: whole photos, tiles, memory
	$(BIN)/python -m benchmarks.loading

bench-policy: $(STAMP)  ## variance of the policy gradient under each option
	$(BIN)/python -m benchmarks.policy_gradient

check-data: $(STAMP)  ## check a data set before training: make check-data data=gopro root=GOPRO_Large blur=blur
	$(BIN)/python -m sapnet check-data data=$(or $(data),folder) data.root=$(root) $(if $(blur),data.blur=$(blur))

tiles: $(STAMP)  ## cut a training set into tiles, 2.5 times as fast to read: make tiles root=GOPRO_Large out=GOPRO_tiles blur=blur
	$(BIN)/python -m sapnet tiles $(root) $(out) $(if $(blur),--blur $(blur))

count: $(STAMP)  ## parameters and multiply-adds of the full-size network
	$(BIN)/python -m sapnet count network=sapnet sampling=nu

table1 table2: $(STAMP)  ## as below, and every trained or published network on whole images: make table1 DATA=FOLDER
	$(BIN)/python -m sapnet reproduce table=$@ scale=$(SCALE) $(DATA_ROOT)
	$(BIN)/python -m sapnet compare table=$@ $(DATA_ROOT)

table3: $(STAMP)  ## parameters and multiply-adds of all networks, beside the paper's
	$(BIN)/python -m sapnet count table=table3

table4 table5 table6: $(STAMP)  ## a table of the paper: train missing rows, render; SCALE=smoke, mini (15 to 60 minutes each), paper
	$(BIN)/python -m sapnet reproduce table=$@ scale=$(SCALE) $(DATA_ROOT)

study: $(STAMP)  ## where to spend the points: U, controls and learned samplers, three seeds (hours; continues where it stopped)
	$(BIN)/python -m sapnet reproduce table=study_local scale=mini results=experiments/results
	$(BIN)/python -m sapnet reproduce table=study_mixed scale=mini results=experiments/results

rates: $(STAMP)  ## PSNR against the learning rate, three seeds (25 minutes)
	$(BIN)/python -m sapnet reproduce table=rates scale=mini

controls: $(STAMP)  ## U and four controls in the full network's three stages, three seeds
	$(BIN)/python -m sapnet reproduce table=controls scale=mini

docs: $(STAMP)  ## put the figures of experiments/results into README.md and docs/, and count the networks again (minutes)
	$(BIN)/python -m sapnet.reporting.docs
	$(BIN)/python docs/scripts/layers.py

$(VENV)/.docs: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

site: $(VENV)/.docs  ## the documentation with the API reference as web pages in outputs/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "outputs/site/index.html; for the search: $(BIN)/python -m http.server --directory outputs/site"

clean:  ## remove the environment and caches; results stay
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist *.egg-info
