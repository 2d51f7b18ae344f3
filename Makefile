PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 10

$(VENV)/installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed and '$(PYTHON)' is not here: apt-get install python3.11 python3.11-venv, or make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, '$(PYTHON)' is `$(PYTHON) --version`: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV) (some minutes, 7 GB) ..."
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

MODEL ?= image
ARMS_image :=
ARMS_video := --rows 2/vgg/rspnet 2/vgg/sampling 2/vgg/previts

demo: $(VENV)/installed ## the whole pipeline on a small synthetic world; ends in demo/report.html (MODEL=video: the video model)
	@test -n "$(filter image video,$(MODEL))" || { echo "MODEL must be image or video, got '$(MODEL)'"; exit 1; }
	$(BIN)/python -m pipelines run-local --root demo $(ARMS_$(MODEL))

test: $(VENV)/installed ## all tests, with coverage
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

lint: $(VENV)/installed ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed ## measure speed (tests/bench)
	$(BIN)/python -m pytest tests/bench -m bench -s

compile: $(VENV)/installed ## write pipelines/previts_full.yaml anew
	$(BIN)/python -m pipelines compile

mlflow: $(VENV)/installed ## browse the runs of the demo at http://127.0.0.1:5000
	$(BIN)/mlflow server --backend-store-uri sqlite:///demo/mlflow.db --port 5000

lock: $(VENV)/installed ## pin every package anew, with hashes
	$(BIN)/uv pip compile pyproject.toml --all-extras --generate-hashes --no-emit-index-url --python-version 3.11 \
		--custom-compile-command "make lock" -o requirements.lock

.PHONY: help demo test lint bench compile mlflow lock
