# Two commands do everything: `make demo` and `make test`. Both set up .venv first.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -c constraints.txt

.PHONY: help demo test bench clean chromium
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.demo ## the whole way on illustrations drawn on the spot (about ten minutes on two cores)
	$(BIN)/efuda demo --out demo
	@echo "The commands are in $(BIN); to type them as shown: . $(BIN)/activate"

test: $(VENV)/.dev .venv-peers/.done chromium ## every check: lint, format, types, tests with coverage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --cov --cov-report=term

bench: $(VENV)/.dev ## every benchmark; the figures seen are in docs/benchmarks.md
	$(BIN)/python benchmarks/base_install.py
	$(BIN)/python benchmarks/prepare.py
	$(BIN)/python benchmarks/images.py
	$(BIN)/python benchmarks/neighbours.py --kind random
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/tag.py --rounds 1
	$(BIN)/python benchmarks/output.py
	$(BIN)/python benchmarks/search.py --work $(VENV)/search --http
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/gallery.py
	$(BIN)/python benchmarks/decoders.py --pipeline --drawn 2000
	@test -d demo/dataset && $(BIN)/python benchmarks/train.py --demo demo || echo "make demo first, for benchmarks/train.py"

clean: ## remove the environments, caches and the demo's results
	rm -rf $(VENV) .venv-peers demo dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): PyTorch is the largest part."
	$(PIP) torch torchvision
	$(PIP) -e '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e '.[dev]'
	touch $@

# A browser for the gallery's tests: Debian's, or whichever is there.
chromium:
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
		{ SUDO=$$(test "$$(id -u)" = 0 || echo sudo); $$SUDO apt-get update -q && $$SUDO apt-get install -q -y chromium; } || \
		{ echo "The gallery's tests need Chromium: install it and run make test again." >&2; exit 1; }

# Another project's loader, to prove that it reads our models; it pins an older numpy, hence a place of its own.
.venv-peers/.done: Makefile
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --disable-pip-version-check --progress-bar off -q 'dghs-imgutils==0.19.0' onnxruntime
	touch $@
