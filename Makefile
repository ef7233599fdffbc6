# Each target works on a fresh machine that has Python 3.10 or later, pip and make: the environment is made when missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WEB_INSTALLED := web/node_modules/.installed
CHROMIUM ?= $(firstword $(shell command -v chromium chromium-browser google-chrome) /usr/bin/chromium)

.PHONY: demo test test-slow test-gpu test-web page check format bench clean

demo: $(INSTALLED)
	$(BIN)/windlass demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow and not gpu"

# On a machine with a device: whatever torch and transformers are installed there, and no network.
test-gpu:
	PYTHONPATH=src $(PYTHON) -m pytest -m gpu

# The page in a real browser, before a real server. Only this and `make page` need Node; whoever uses Windlass does not.
test-web: $(INSTALLED) $(WEB_INSTALLED)
	@test -x "$(CHROMIUM)" || { echo "make test-web needs Chromium, and $(CHROMIUM) is none: apt-get install chromium, or name one with make test-web CHROMIUM=/path/to/chrome" >&2; exit 1; }
	CHROMIUM="$(CHROMIUM)" WINDLASS="$(CURDIR)/$(BIN)/windlass" npm --prefix web test

# What web/ gives, into the Python package.
page: $(WEB_INSTALLED)
	npm --prefix web run build

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_floors.py

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp, so that a change of the dependencies is installed and an interrupted installation is begun again.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Windlass needs Python 3.10 or later; name one with make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch -e '.[dev,plot]'
	touch $@

$(WEB_INSTALLED): web/package.json web/package-lock.json
	@node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' && command -v npm >/dev/null || { echo "the page's tests need Node 20.19 or later with npm: https://nodejs.org, or your system's packages nodejs and npm" >&2; exit 1; }
	npm --prefix web ci --no-audit --no-fund
	touch $@
