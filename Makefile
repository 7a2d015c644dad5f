# Every target works from a fresh clone with nothing but Python 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := oms analytics orders risk portfolio routing brokers tests
# Reading the code takes no database; the settings only want to see an address.
READING := DATABASE_URL=postgresql://oms@127.0.0.1:1/oms REDIS_URL=redis://127.0.0.1:1/0

.DEFAULT_GOAL := help
.PHONY: help setup check format test bench faults simulate replay fuzz audit-deps lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## Make .venv with all pinned packages, the development ones too
	@$(PYTHON) manage.py setup --dev

check: setup ## Format, lint, types, import contracts, missing migrations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(READING) $(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	$(READING) $(BIN)/python -W ignore manage.py makemigrations --check --dry-run

format: setup ## Format the code and apply the linter's safe repairs
	$(BIN)/ruff check --fix --silent . || true
	$(BIN)/ruff format .

test: setup ## All tests but the long suites
	$(PYTHON) manage.py test $(ARGS)

bench: setup ## Measure speed, with baselines; ONLY=name runs one
	env -u DATABASE_URL -u REDIS_URL $(BIN)/python -m tests.benchmarks $(if $(ONLY),--only "$(ONLY)") $(ARGS)

faults: setup ## Kill processes and servers under load and count what is lost; KILLS=300 CYCLES=20 SEED=7 ONLY=name
	$(PYTHON) manage.py test -n 0 -m long tests/faults tests/fix $(if $(ONLY),-k "$(ONLY)") -s $(ARGS)

simulate: setup ## Trade against lying brokers on a clock of their own; SEEDS=200 SEED=1 ORDERS=60 FAULTS=all
	$(PYTHON) manage.py simulate --seed $(or $(SEED),1) --seeds $(or $(SEEDS),200) --orders $(or $(ORDERS),60) --faults $(or $(FAULTS),all) --report var/reports $(ARGS)

fuzz: setup ## Generate requests from the API's own description; FUZZ=500 examples a route
	FUZZ=$(or $(FUZZ),200) $(PYTHON) manage.py test -n 0 tests/security/test_schema.py $(ARGS)

replay: setup ## Trade a whole desk on recorded quotes; QUOTES=folder ORDERS=200 (a small recording is there)
	env -u DATABASE_URL -u REDIS_URL $(BIN)/python -m tests.mainjob $(if $(QUOTES),--quotes "$(QUOTES)") $(if $(ORDERS),--orders $(ORDERS)) $(ARGS)

audit-deps: setup ## Ask the advisory database about the pinned packages (needs the network)
	$(BIN)/pip-audit --require-hashes --disable-pip -r requirements.txt
	$(BIN)/pip-audit --require-hashes --disable-pip -r requirements-dev.txt

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url
lock: setup ## Pin anew what pyproject.toml asks for
	$(COMPILE) pyproject.toml -o requirements.txt
	$(COMPILE) --extra dev -c requirements.txt pyproject.toml -o requirements-dev.txt

clean: ## Remove caches and .venv; the data in var/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
