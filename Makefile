# `make` lists the targets.
PYTHON ?= python3
PROFILE ?=
CLUSTER ?=
BIN := .venv/bin
# OpenMP threads that spin while they wait cost more than they gain on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help repository venv benchmark up down test test-quick soak docs lint types clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

venv: .venv/installed ## create .venv and install the versions in constraints.txt

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("error: $(PYTHON) is Python %d.%d; dxai needs 3.11 or later: make PYTHON=python3.11 ..." % v[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

repository: ## check, before anything is installed, that DVC can run here
	@git rev-parse --git-dir >/dev/null 2>&1 || test -e .git || { echo "error: $(CURDIR) is no git repository, which DVC needs, or git is not installed" >&2; exit 1; }

benchmark: repository venv ## run everything and print Table 1 (PROFILE=quick|smoke|... selects a profile)
	@$(BIN)/python -m infra.local benchmark $(if $(PROFILE),--profile $(PROFILE))

up: repository venv ## start Prefect, MLflow and a worker on loopback (CLUSTER=1: also PostgreSQL, S3 and Ray)
	@$(BIN)/python -m infra.local up $(if $(CLUSTER),--cluster)

down: ## stop the services that `make up` started
	@$(BIN)/python -m infra.local down

test: venv ## run every test (as root on Debian, also install their programs; without one, skip its tests)
	@.ci/programs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

test-quick: venv ## run the fast tests, under 2 minutes
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder -m "not slow"

soak: venv ## kill processes at random, 24 times of trainings, 20 times anything of two runs, and compare results
	$(BIN)/python -m tests.soak trainings --kills 24
	$(BIN)/python -m tests.soak runs --kills 20

docs: venv ## build the documentation in docs/_build/html; its tutorials run, a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --builder html docs docs/_build/html

lint: venv ## check the style of the code, and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: venv ## check the types of the code
	$(BIN)/mypy

clean: ## remove caches and what was built; ALL=1: also .work, with the servers' data and secrets
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache build docs/_build docs/gallery *.egg-info
	find . -path ./.venv -prune -o -path ./.work -prune -o -name __pycache__ -type d -exec rm -rf {} +
ifdef ALL
	$(MAKE) down
	@echo "removing .work: databases and history of Prefect and MLflow, their files, the S3 store, unfinished work, secrets"
	rm -rf .work
endif
