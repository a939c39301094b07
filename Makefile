# `make` lists the targets.
PYTHON ?= python3
PROFILE ?=
CLUSTER ?=
BIN := .venv/bin
# Two busy OpenMP threads that spin while they wait cost more than they bring.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help venv benchmark up down test test-quick soak lint types clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

venv: .venv/installed ## make .venv and install what constraints.txt pins

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

benchmark: venv ## run everything and print Table 1 (PROFILE=quick|smoke|... chooses another profile)
	@$(BIN)/python -m infra.local benchmark $(if $(PROFILE),--profile $(PROFILE))

up: venv ## start Prefect, MLflow and a worker on loopback (CLUSTER=1: PostgreSQL, S3 and Ray as well)
	@$(BIN)/python -m infra.local up $(if $(CLUSTER),--cluster)

down: ## stop what `make up` started
	@$(BIN)/python -m infra.local down

test: venv ## every test; as root on Debian, what they need is installed (a missing program skips)
	@.ci/programs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

test-quick: venv ## the tests one runs all day, under 3 minutes
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder -m "not slow"

soak: venv ## kill what runs a training at random, 24 times; it must end as if undisturbed
	$(BIN)/python -m tests.soak --kills 24

lint: venv ## style of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv ## types of the code
	$(BIN)/mypy

clean: down ## remove servers' data, unfinished work and caches; results and .venv stay
	rm -rf .work .pytest_cache .hypothesis .mypy_cache .ruff_cache build *.egg-info
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
