# Two commands do everything on a machine that has Python 3.11 or newer and make:
#   make quickstart   set-up, distil CartPole into two pairs, train and score fresh policies
#   make test         set-up and tests
PYTHON ?= python3
UV_VERSION := 0.13.8
VENV := .venv
RUN := runs/quickstart
PYTEST := $(VENV)/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --durations=25

export UV_PROJECT_ENVIRONMENT := $(VENV)

.PHONY: setup quickstart test coverage test-slow lint format docs

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml uv.lock Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hades needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(VENV)/bin/uv sync --quiet --frozen --inexact --extra test --python $(VENV)/bin/python
	touch $@

quickstart: setup
	$(VENV)/bin/hades distill --preset cartpole --target-return 500 --out $(RUN) --resume
	$(VENV)/bin/hades evaluate $(RUN) --num-inits 32 --num-episodes 8 --baselines

test: setup
	$(PYTEST)

# Apart from `test`, as tracing of lines takes a third more CPU time.
coverage: setup
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-fail-under=90

test-slow: setup
	$(VENV)/bin/python -m pytest -m slow

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --site-dir site
