PY ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

.PHONY: install check test test-all demo docs screenshots bench audit lock clean

install: .venv/.installed  ## a virtual environment of its own, with pinned versions

.venv/.installed: requirements.lock pyproject.toml
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nextsession needs Python 3.11 or newer; set PY=python3.11")'
	test -x $(BIN)/python || $(PY) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

check: install  ## format, lint, types, import contracts, spelling, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell src tests docs README.md CONTRIBUTING.md CHANGELOG.md
	$(BIN)/pytest -q -n 2 tests/unit tests/golden

test: check  ## everything that must pass on every commit
	$(BIN)/pytest -q -n 2 --ignore=tests/unit --ignore=tests/golden

test-all: install  ## the slow tests too
	$(BIN)/pytest -q -n 2 -m ''

demo: install  ## a real data set, several models, a report, a live page
	$(BIN)/nextsession demo

docs: install  ## write the generated pages of the documentation
	$(BIN)/nextsession docs

screenshots: install  ## the pictures of the page, made by its tests
	NEXTSESSION_SCREENSHOTS=docs/page $(BIN)/pytest -q tests/browser -k 'both_lists or own_session or operations or told or narrow or dark'

bench: install  ## every model on the benchmark sets at hand; resumes
	$(BIN)/nextsession bench

audit:  ## known weaknesses of the pinned packages; asks the package index for them, and fails where it does not say
	test -x .audit/bin/pip-audit || { $(PY) -m venv .audit && .audit/bin/python -m pip install --quiet pip-audit; }
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements.lock

lock: install  ## pin what is installed
	$(BIN)/python -m pip freeze --exclude-editable > requirements.lock

clean:  ## remove what can be made again
	rm -rf .venv .audit .pytest_cache .mypy_cache .ruff_cache .hypothesis
