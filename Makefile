# Every target sets up what it needs: a machine with Python 3.11+ and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_WORKERS ?= 2
# Trained adapters are cached here, so that demo and test train them once.
export SLIPWAY_HOME ?= $(CURDIR)/.slipway
export DO_NOT_TRACK := 1

.PHONY: setup demo test lint bench schemas clean browser-check

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Slipway needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (about two minutes the first time) ..."
	@# pip compiles 23,000 modules one after the other. All cores do it here, and skip what packages bring to test them.
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	@$(BIN)/python -W ignore -m compileall -q -q -j 0 -x '/tests/' $(VENV)/lib || true
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/slipway rehearse $(DEMO_FLAGS)

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

schemas: $(STAMP)
	@for kind in gate suite target; do $(BIN)/slipway schema $$kind > configs/schema/$$kind.json || exit 1; done

bench: $(STAMP)
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

browser-check: $(STAMP)
	@$(BIN)/python tests/browser/check_report.py
	@$(BIN)/python tests/browser/check_ui.py

clean:
	rm -rf $(VENV) .slipway .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build screenshots
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
