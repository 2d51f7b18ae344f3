PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

IMAGES := data train launcher mlflow
# Each step is started by the kfp package, so all images of steps contain it.
EXTRAS_data := --extra pipelines --extra data --extra youtube
EXTRAS_train := --extra pipelines --extra train --extra launch
EXTRAS_launcher := --extra pipelines --extra launch
EXTRAS_mlflow := --extra mlflow

.DEFAULT_GOAL := help

help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 10

$(VENV)/installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "'$(PYTHON)' was not found; Python 3.11, 3.12 or 3.13 is needed: apt-get install python3.11 python3.11-venv, or make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "'$(PYTHON)' is `$(PYTHON) --version`; Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV) (some minutes, 7 GB) ..."
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

MODEL ?= image
ARMS_image :=
ARMS_video := --rows 2/vgg/rspnet 2/vgg/sampling 2/vgg/previts

demo: $(VENV)/installed ## run the whole pipeline on a small synthetic world and write demo/report.html (MODEL=video: the video model)
	@test -n "$(filter image video,$(MODEL))" || { echo "MODEL must be image or video, got '$(MODEL)'"; exit 1; }
	$(BIN)/python -m pipelines run-local --root demo $(ARMS_$(MODEL))

test: $(VENV)/installed ## run all tests with coverage
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

lint: $(VENV)/installed ## run ruff, mypy --strict and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed ## measure speed and quality (tests/bench)
	$(BIN)/python -m pytest tests/bench -m bench -s

compile: $(VENV)/installed ## compile pipelines/*.yaml again
	$(BIN)/python -m pipelines compile

mlflow: $(VENV)/installed ## browse the runs of the demo at http://127.0.0.1:5000
	$(BIN)/mlflow server --backend-store-uri sqlite:///demo/mlflow.db --port 5000

lock: $(VENV)/installed ## pin every package again, with hashes, and list the packages of each image
	$(BIN)/uv pip compile pyproject.toml --all-extras --generate-hashes --no-emit-index-url --python-version 3.11 \
		--custom-compile-command "make lock" -o requirements.lock
	set -e; $(foreach image,$(IMAGES),$(BIN)/uv pip compile pyproject.toml $(EXTRAS_$(image)) --quiet --no-header \
		--no-annotate --no-emit-index-url --python-version 3.11 -c requirements.lock -o images/$(image).txt;)

# Images are built with Docker or Podman. BASE sets the base image (with a digest) and REGISTRY the registry.
ENGINE ?= docker
BASE ?= docker.io/library/python:3.11-slim
REGISTRY ?= previts
TAG ?= 0.2.0

images: ## build the container images (BASE=python:3.11-slim@sha256:..., ENGINE=podman)
	for image in $(IMAGES); do \
		$(ENGINE) build -f images/Dockerfile -t $(REGISTRY)/previts-$$image:$(TAG) --build-arg BASE=$(BASE) \
			--build-arg IMAGE=$$image --build-arg VERSION=$(TAG) --build-arg REVISION=`git rev-parse HEAD` . || exit 1; \
	done

push: images ## push the images to REGISTRY and write their digests to images/pushed.env
	@test $(REGISTRY) != previts || { echo "REGISTRY is not set: make push REGISTRY=europe-docker.pkg.dev/PROJECT/previts"; exit 1; }
	echo "PREVITS_REGISTRY=$(REGISTRY) PREVITS_TAG=$(TAG)" > images/pushed.env
	for image in $(IMAGES); do \
		$(ENGINE) push $(REGISTRY)/previts-$$image:$(TAG) || exit 1; \
		digest=`$(ENGINE) image inspect --format '{{index .RepoDigests 0}}' $(REGISTRY)/previts-$$image:$(TAG)` || exit 1; \
		echo "PREVITS_`echo $$image | tr a-z A-Z`_DIGEST=$${digest#*@}" >> images/pushed.env; \
	done

.PHONY: help demo test lint bench compile mlflow lock images push
