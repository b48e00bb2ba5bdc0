# make demo    halve a small trained network, export it to ONNX, evaluate it, print the comparison
# make test    lint, types and tests
# make lint    ruff and mypy alone
# make clean   remove the environment and everything that is built
#
# Needs Python 3.11 or newer and nothing else. The environment is made once, in $(VENV).

PYTHON ?= python3
VENV ?= .venv
# A chunk of tests that is handed out late would keep one process busy alone
PYTEST_FLAGS ?= -n 2 --maxschedchunk 8

bin := $(VENV)/bin
stamp := $(VENV)/.installed
uv := $(shell command -v uv 2>/dev/null)

.PHONY: demo test lint clean

demo: $(stamp)
	$(bin)/compress prune sample_models/digits_resnet.safetensors \
	  --arch sample_models/architectures.py:residual_cnn --data digits --ratio 0.5 -o demo --force
	$(bin)/compress export demo --onnx
	$(bin)/compress eval demo --data digits
	@echo && sed '/^## /,$$d' demo/report.md && ls -l demo

test: lint
	OMP_NUM_THREADS=1 $(bin)/python -m pytest $(PYTEST_FLAGS)

lint: $(stamp)
	$(bin)/ruff check .
	$(bin)/mypy

clean:
	rm -rf $(VENV) demo compressed build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find compress plugins tests sample_models -name __pycache__ -type d -prune -exec rm -rf {} +

# Made again when pyproject.toml changes: dependencies and entry points are read at installation.
$(stamp): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no Python found as '$(PYTHON)'" >&2; \
	  echo "  try: install Python 3.11 or newer, or: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, but $(PYTHON) is $$($(PYTHON) --version 2>&1)" >&2; \
	  echo "  try: make PYTHON=python3.12" >&2; exit 1; }
ifneq ($(uv),)
	$(uv) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV)
	$(uv) pip install --quiet --compile-bytecode --python $(bin)/python -e '.[test]'
else
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
endif
	@touch $(stamp)
