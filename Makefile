PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --disable-pip-version-check

IMAGES := data train launcher mlflow
# Each step is started by the kfp package, so all images of steps contain it.
EXTRAS_data := --extra pipelines --extra data --extra youtube
EXTRAS_train := --extra pipelines --extra train --extra launch
EXTRAS_launcher := --extra pipelines --extra launch
EXTRAS_mlflow := --extra mlflow

.DEFAULT_GOAL := help

help: ## show this help
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' | expand -t 14

$(VENV)/installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "'$(PYTHON)' was not found; Python 3.11, 3.12 or 3.13 is needed: apt-get install python3.11 python3.11-venv, or make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "'$(PYTHON)' is `$(PYTHON) --version`; Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV) (1 to 4 minutes, 7 GB) ..."
	awk '/^[^ ]/ { uv = /^uv==/ } uv' requirements.lock > $(VENV)/uv.txt
	$(PIP) --no-deps --require-hashes -r $(VENV)/uv.txt
	@# uv is quicker than pip, but does not read all of its settings; where uv fails, pip installs the same packages.
	index=$${PIP_INDEX_URL:-`$(BIN)/python -m pip config get global.index-url 2>/dev/null`}; $(BIN)/uv pip install \
		--python $(BIN)/python --compile-bytecode --system-certs $${index:+--default-index "$$index"} --no-deps \
		--require-hashes -r requirements.lock || $(PIP) --no-deps --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

MODEL ?= image
ARMS_image :=
ARMS_video := --rows 2/vgg/rspnet 2/vgg/sampling 2/vgg/previts

demo: $(VENV)/installed ## run the whole pipeline on a small synthetic world and write demo/report.html (MODEL=video: the video model)
	@test -n "$(filter image video,$(MODEL))" || { echo "MODEL must be image or video, got '$(MODEL)'"; exit 1; }
	$(BIN)/python -m pipelines run-local --root demo $(ARMS_$(MODEL))

test: $(VENV)/installed ## run all tests on all cores, with coverage
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

test-long: $(VENV)/installed ## run the tests that take many minutes: kills in every verb, hundreds of hostile videos, two runs at once, variants of tests
	$(BIN)/python -m pytest -m long -s

cluster-test: $(VENV)/installed ## run pods on a real Kubernetes node in namespaces of this machine (root, Go, containerd: CONTRIBUTING.md)
	$(BIN)/python -m pytest tests/cluster -m cluster -s

e2e: $(VENV)/installed ## run the whole pipeline on the Kubeflow Pipelines that KF_PIPELINES_ENDPOINT names (CONTRIBUTING.md)
	$(BIN)/python -m pytest tests/e2e -m e2e -s

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

# Images are built with Docker or Podman. BASE sets the base image and REGISTRY the registry.
ENGINE ?= docker
BASE ?= docker.io/library/python:3.11-slim
POSTGRES ?= docker.io/library/postgres:17.6
REGISTRY ?= previts
TAG ?= 0.2.0
CONTENT := images/content
# Pinned by images/tools/go.mod; Go 1.26.8 or newer builds them at the first use.
TOOL := SYFT_CHECK_FOR_APP_UPDATE=false GRYPE_CHECK_FOR_APP_UPDATE=false go -C images/tools tool
DIGEST := image inspect --format '{{index .RepoDigests 0}}'
# $(call pinned,NAME): the name with the digest that its tag has in the registry now, unless it has a digest.
pinned = case $(1) in *@sha256:*) echo $(1) ;; *) $(ENGINE) pull $(1) >&2 && $(ENGINE) $(DIGEST) $(1) ;; esac

images: ## build the container images and list what they contain (ENGINE=podman, BASE=python:3.11-slim@sha256:...)
	@command -v go > /dev/null || { echo "'go' was not found; Go 1.26.8 or newer is needed to build syft, which lists what an image contains"; exit 1; }
	mkdir -p $(CONTENT)
	set -e; base=`$(call pinned,$(BASE))`; for image in $(IMAGES); do \
		$(ENGINE) build -f images/Dockerfile -t $(REGISTRY)/previts-$$image:$(TAG) --build-arg BASE=$$base \
			--build-arg IMAGE=$$image --build-arg VERSION=$(TAG) --build-arg REVISION=`git rev-parse HEAD` .; \
		$(ENGINE) save -o $(CONTENT)/$$image.tar $(REGISTRY)/previts-$$image:$(TAG); \
		$(TOOL) syft scan docker-archive:$(CURDIR)/$(CONTENT)/$$image.tar --source-name previts-$$image \
			--source-version $(TAG) --output cyclonedx-json=$(CURDIR)/$(CONTENT)/$$image.json; \
		rm -f $(CONTENT)/$$image.tar; \
	done

push: images ## push the images to REGISTRY and write their digests to images/pushed.env
	@test $(REGISTRY) != previts || { echo "REGISTRY is not set: make push REGISTRY=europe-docker.pkg.dev/PROJECT/previts"; exit 1; }
	set -e; postgres=`$(call pinned,$(POSTGRES))`; \
	echo "PREVITS_REGISTRY=$(REGISTRY) PREVITS_TAG=$(TAG) PREVITS_POSTGRES=$$postgres" > images/pushed.part; \
	for image in $(IMAGES); do \
		$(ENGINE) push $(REGISTRY)/previts-$$image:$(TAG); \
		digest=`$(ENGINE) $(DIGEST) $(REGISTRY)/previts-$$image:$(TAG)`; \
		echo "PREVITS_`echo $$image | tr a-z A-Z`_DIGEST=$${digest#*@}" >> images/pushed.part; \
	done; mv images/pushed.part images/pushed.env

scan: ## look for known faults in what `make images` listed; needs the network, for grype's list of faults
	set -e; for image in $(IMAGES); do $(TOOL) grype sbom:$(CURDIR)/$(CONTENT)/$$image.json; done

sign: ## sign the pushed images and their lists of contents (needs cosign, and a registry that stores signatures)
	@command -v cosign > /dev/null || { echo "'cosign' was not found; install it: https://docs.sigstore.dev/cosign"; exit 1; }
	set -e; for image in $(IMAGES); do \
		digest=`sed -n "s/^PREVITS_$$(echo $$image | tr a-z A-Z)_DIGEST=//p" images/pushed.env`; \
		name=`sed -n 's/^PREVITS_REGISTRY=\([^ ]*\).*/\1/p' images/pushed.env`/previts-$$image@$$digest; \
		cosign sign --yes $$name; \
		cosign attest --yes --type cyclonedx --predicate $(CONTENT)/$$image.json $$name; \
	done

licences: $(VENV)/installed ## write the table of docs/licences.md again
	$(BIN)/python images/licences.py

.PHONY: help demo test test-long cluster-test e2e lint bench compile mlflow lock images push scan sign licences
