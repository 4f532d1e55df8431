# Needs only make and Python 3.11 or newer. Everything else goes into .venv, which is made on first use and
# made again when this Python, this folder, pyproject.toml or the source in C is another one.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto
PYTEST_ARGS ?=
BENCH_ARGS ?=
CONFORMANCE_ARGS ?=
MATRIX_ARGS ?=

MADE_FROM := $(shell { $(PYTHON) -VV; pwd; } 2>/dev/null | cksum | cut -d' ' -f1)
INSTALLED_FROM := $(MADE_FROM)-$(shell cat pyproject.toml quickcache_core/*.h quickcache_core/*/*.[ch] | cksum | cut -d' ' -f1)
MADE := $(VENV)/.made-$(MADE_FROM)
INSTALLED := $(VENV)/.installed-$(INSTALLED_FROM)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check format docs conformance bench build smoke matrix clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-15s %s\n' "$$name" "$$what"; done

demo: $(INSTALLED)-demo ## start the Django example under gunicorn, send it requests, show what was cached
	@$(BIN)/python example_projects/demo.py

test: $(INSTALLED)-dev ## run all tests; PYTEST_ARGS="-k lru" narrows them
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope $(PYTEST_ARGS)

check: $(INSTALLED)-dev ## lint, formatting, types, import rules, code blocks of the docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q tests/docs

format: $(INSTALLED)-dev ## format the code, mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)-dev ## write the table of docs/settings.md anew, from the code
	@$(BIN)/python tests/docs/settings_table.py --write

conformance: $(INSTALLED)-dev ## Django's and Flask-Caching's own cache tests, with QuickCache as the backend
	$(BIN)/python tests/conformance/run.py $(CONFORMANCE_ARGS)

bench: $(INSTALLED)-dev ## time QuickCache next to other caches
	$(BIN)/python -m pip install -qq --disable-pip-version-check -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

build: $(INSTALLED)-dev ## build the wheel and the sdist into dist/
	@rm -rf dist
	$(BIN)/python -m build

smoke: build ## install the built wheel into an empty environment and use it from an empty folder
	$(BIN)/python tests/packaging/smoke.py dist

matrix: $(INSTALLED)-dev ## run the tests on every Python that is supported and found here
	$(BIN)/nox -f .ci/noxfile.py --no-error-on-missing-interpreters $(MATRIX_ARGS)

clean: ## remove everything that these commands made
	rm -rf $(VENV) .nox .cache dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f quickcache_core/*/_*.so quickcache_core/*/_*.pyd

$(MADE):
	@command -v $(PYTHON) >/dev/null || { \
		echo "There is no $(PYTHON) on this machine: install Python 3.11 or newer, or name it: make PYTHON=/path/to/python" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "QuickCache needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1): name another one: make PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) can't make virtual environments: on Debian and Ubuntu, apt install python3-venv" >&2; \
		exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(INSTALLED)-%: $(MADE)
	@echo "Installing what '$*' needs into $(VENV)"
	@rm -f $(VENV)/.installed-*-$*
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[$*]'
	@touch $@
