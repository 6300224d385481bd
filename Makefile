# Every target makes .venv and installs what it needs; nothing else has to be there but
# git, make and Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PLUGINS := $(sort $(wildcard plugins/*/pyproject.toml))
PACKAGES := scdrugmap $(foreach p,$(PLUGINS),$(dir $(p))scdrugmap_plugin_$(notdir $(patsubst %/,%,$(dir $(p)))))
PYPROJECTS := pyproject.toml $(PLUGINS)
# the reference figures need two files that are not part of the project, a million cells a folder
BENCHMARKS := $(filter-out benchmarks/reference_figures.py benchmarks/million_cells.py,$(wildcard benchmarks/*.py))
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
# heavy files first (tests/conftest.py puts them there): what is left at the end is short
IN_WORKERS = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# the workflow engines, apart: they pin what torch and pydantic would fight over
ENGINES := .venv-cwl
ENGINES_STAMP := $(ENGINES)/.installed
TEST_ENGINES = SCDRUGMAP_RUNNERS=$(CURDIR)/$(ENGINES)/bin $(PYTEST) -q tests/workflows

.DEFAULT_GOAL := help
.PHONY: help install demo test test-unit test-workflows test-cwl test-node-loss test-scaling cwl lint format docs schema bench wheels clean \
    licences audit sbom fuzz fuzz-guided faults kills race million properties-long reliability

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

install: $(STAMP)  ## Create .venv with the project, its plugins and the tools of development

$(STAMP): $(PYPROJECTS) constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    --editable '.[explain,llm,report,dev,docs]' $(foreach p,$(PLUGINS),--editable ./$(dir $(p)))
	touch $@

demo: install  ## Simulate a cohort, run the whole benchmark on it, write runs/demo/report.html
	mkdir -p runs
	$(BIN)/scdrugmap datasets simulate -o runs/demo-cohort.h5ad --seed 0 --overwrite
	$(BIN)/scdrugmap benchmark benchmarks/demo.yaml -o runs/demo --overwrite
	@echo "Open runs/demo/report.html"

# one thread a worker: with more, threads that wait for each other cost three to ten times as much
test test-unit reliability properties-long: export OMP_NUM_THREADS ?= 1

test: install  ## Run all tests
	$(PYTEST) $(IN_WORKERS) -q

test-unit: install  ## Run the fast tests
	$(PYTEST) $(IN_WORKERS) -q -m 'not slow'

test-workflows: test-cwl test-galaxy  ## Run all workflow tools on their real engines

test-cwl: install $(ENGINES_STAMP)  ## Run the CWL files on cwltool, Toil and a Slurm of three nodes (as root)
	rm -rf cwl/tests/made
	mkdir -p build
	-tests/workflows/install_slurm.sh
	$(TEST_ENGINES) --junitxml build/cwl.xml
	$(BIN)/python scripts/workflow_changes.py record cwl --junit build/cwl.xml

test-node-loss: install $(ENGINES_STAMP)  ## Kill a node of that Slurm under a benchmark; takes minutes of waiting
	-tests/workflows/install_slurm.sh
	SCDRUGMAP_NODE_LOSS=1 $(TEST_ENGINES) -k lost_node

test-scaling: install $(ENGINES_STAMP)  ## Compare the scale plan with real runs on that Slurm; wants a quiet machine
	-tests/workflows/install_slurm.sh
	SCDRUGMAP_SCALING=1 $(TEST_ENGINES) -s -k quarter

$(ENGINES_STAMP): cwl/requirements.txt
	test -x $(ENGINES)/bin/python || $(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check -r cwl/requirements.txt
	touch $@

cwl: install  ## Write the CWL tools anew from the options of the command line
	$(BIN)/python scripts/make_cwl.py

lint: install  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)

format: install  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: install  ## Write the JSON schema of benchmark files, docs/reference/benchmark.schema.json
	$(BIN)/python scripts/make_benchmark_schema.py

GALAXY := .galaxy
GALAXY_STAMP := $(GALAXY)/.installed
GALAXY_PYTHON := $(GALAXY)/planemo/bin/python
.PHONY: lint-galaxy test-galaxy test-galaxy-all

$(GALAXY_STAMP): galaxy_tools/requirements-server.txt galaxy_tools/requirements-planemo.txt
	rm -rf $(GALAXY)
	$(PYTHON) -m venv $(GALAXY)/planemo
	$(GALAXY)/planemo/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(GALAXY)/planemo/bin/uv pip install --quiet --python $(GALAXY)/planemo/bin/python \
	    --requirement galaxy_tools/requirements-planemo.txt
	$(PYTHON) -m venv $(GALAXY)/server
	$(GALAXY)/planemo/bin/uv pip install --quiet --compile-bytecode --no-deps \
	    --python $(GALAXY)/server/bin/python --requirement galaxy_tools/requirements-server.txt
	touch $@

lint-galaxy: $(GALAXY_STAMP)  ## Lint the Galaxy tools (installs planemo and a Galaxy server into .galaxy)
	$(GALAXY)/planemo/bin/planemo lint --recursive --skip BioToolsValid galaxy_tools
	$(GALAXY)/planemo/bin/planemo workflow_lint galaxy_tools/workflows

test-galaxy: install lint-galaxy  ## Run 12 tests of the Galaxy tools on a real server
	$(GALAXY_PYTHON) scripts/galaxy_server.py test --quick
	$(BIN)/python scripts/workflow_changes.py record galaxy

test-galaxy-all: install lint-galaxy  ## Run every test of the Galaxy tools, and the workflows
	$(GALAXY_PYTHON) scripts/galaxy_server.py test
	$(BIN)/python scripts/workflow_changes.py record galaxy

docs: install  ## Build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: install  ## Measure speed and memory (not part of the tests)
	for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

wheels: install  ## Build sdist and wheels of the core and of every plugin into dist/, always the same bytes
	rm -rf dist
	$(BIN)/python scripts/build_distributions.py --output dist
	ls dist

licences: install  ## List the licences of all runtime dependencies; fails on one that does not go with ours
	$(BIN)/python scripts/check_licences.py

# the tools of the next two targets, apart: they pin what others would fight over
SUPPLY_CHAIN := .venv-supply-chain
SUPPLY_CHAIN_STAMP := $(SUPPLY_CHAIN)/.installed

$(SUPPLY_CHAIN_STAMP): scripts/supply_chain_requirements.txt
	test -x $(SUPPLY_CHAIN)/bin/python || $(PYTHON) -m venv $(SUPPLY_CHAIN)
	$(SUPPLY_CHAIN)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

audit: $(SUPPLY_CHAIN_STAMP)  ## Look up every pinned version in a database of vulnerabilities; fails if NOT RUN
	$(SUPPLY_CHAIN)/bin/python scripts/audit_dependencies.py

sbom: wheels $(SUPPLY_CHAIN_STAMP)  ## Write the bill of materials of the core, dist/*.cdx.json (CycloneDX)
	$(BIN)/python scripts/make_sbom.py --tools $(SUPPLY_CHAIN)/bin/python --wheel dist/scdrugmap-*.whl

# what is tried to break this project; docs/reliability.md says what came out
HARDENING := $(wildcard tests/bad_inputs tests/faults tests/properties tests/test_forbidden_calls.py \
    tests/test_supply_chain.py tests/test_safe_pickle.py tests/test_weights*.py tests/test_files.py \
    tests/test_store.py tests/test_tables.py)
GUIDED_SECONDS ?= 150

fuzz: install  ## Damage 20,000 h5ad files and zarr stores at random, and read them; half an hour
	$(BIN)/python tests/faults/mutants.py --number 20000 --seed 0

fuzz-guided: install  ## Fuzz our readers of text and pickles, guided by their branches, 150 s each
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris==3.0.0
	$(BIN)/python tests/faults/guided.py --seconds $(GUIDED_SECONDS)

faults: install  ## Fail and kill every file call of the commands that write; hours
	$(BIN)/python tests/faults/sweep.py

kills: install  ## Kill a benchmark at 200 random moments and resume it
	$(BIN)/python tests/faults/kills.py --number 200

race: install  ## 8 processes x 50 rounds on one embedding and one run folder
	$(BIN)/python tests/faults/concurrency.py --rounds 50 --processes 8

million: install  ## Memory of every verb on a million cells; 5 GB of files
	mkdir -p build/million
	$(BIN)/python benchmarks/million_cells.py build/million

properties-long: install  ## Try every property on 200 random examples
	HYPOTHESIS_PROFILE=long $(PYTEST) -n $(WORKERS) -q --timeout 6000 tests/properties

reliability: install  ## Run the tests of hardening and write docs/reliability.md from them and the long runs
	mkdir -p build
	$(PYTEST) $(IN_WORKERS) -q --junitxml build/reliability.xml $(HARDENING)
	$(BIN)/python scripts/make_reliability_page.py --tests build/reliability.xml

clean:  ## Remove everything that was made
	rm -rf $(VENV) $(ENGINES) $(GALAXY) $(SUPPLY_CHAIN) cwl/tests/made build dist runs docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name '*.egg-info' -prune -exec rm -rf {} +
	find . -name __pycache__ -prune -exec rm -rf {} +
