# The one door. Each target is one command that people, CI and the README share; `make help` lists them.

.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
PACKAGES := -p tuning_api -p tuning_operator -p tuning_trial -p cluster -p bench
STAMP := $(VENV)/.installed
AUDIT := $(VENV)/audit
# Tests start hundreds of interpreters. Where Python may not keep its bytecode, each compiles all that it imports: fifteen
# seconds for Lightning.
unexport PYTHONDONTWRITEBYTECODE
# Files side by side, each with a control plane and a Postgres of its own: most of a test's time is waiting, so one more than cores.
SIDE_BY_SIDE := --numprocesses=$(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --maxprocesses=4 --dist=loadfile

##@ Use it
.PHONY: help demo cluster-demo
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z0-9_-]+:.*## / {gsub(/\$$\$$/, "$$"); printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## The digits study on this machine alone, without a cluster: a minute, ending with the report's path
	@$(BIN)/tuningstudy run manifests/samples/digits.yaml

cluster-demo: $(STAMP) ## The main job: a cluster, the images, the chart, and the digits study from apply to charts
	@$(RUN) -m cluster demo

##@ Test it
.PHONY: test check unit component chart e2e audit
test: check programs ## All tests: static checks, unit, component, chart, and e2e where this machine can
	@$(BIN)/pytest $(SIDE_BY_SIDE) tests/unit tests/component tests/chart
	@$(BIN)/pytest tests/e2e

check: lint types imports manifests-check ## Static checks: style, types, import contracts, generated files

unit: $(STAMP) ## Pure tests only: seconds
	@$(BIN)/pytest tests/unit

component: programs ## Real Postgres and real API server, workers as local processes
	@$(BIN)/pytest $(SIDE_BY_SIDE) tests/component

chart: programs ## The Helm chart, rendered
	@$(BIN)/pytest tests/chart

e2e: programs ## Real kubelet, real images, Helm (needs root, or TUNING_TEST_CONTEXT)
	@$(BIN)/pytest tests/e2e

audit: $(AUDIT)/.installed ## Ask PyPI's database for known vulnerabilities of all that is pinned
	@for part in operator trial dev; do \
	  $(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements/$$part.txt > $(AUDIT)/log 2>&1 \
	    && echo "requirements/$$part.txt: no known vulnerability" && continue; \
	  failed=1; \
	  if grep -qE 'could not be audited|^requests\.|ServiceError' $(AUDIT)/log; \
	    then echo "requirements/$$part.txt was NOT checked, since the database cannot be asked: $$(tail -n 1 $(AUDIT)/log)"; \
	    else cat $(AUDIT)/log; fi; \
	done; exit $${failed:-0}

$(AUDIT)/.installed: $(STAMP) requirements/audit.txt
	@$(PYTHON) -m venv $(AUDIT)
	@$(BIN)/uv pip sync --quiet --python $(AUDIT)/bin/python --require-hashes requirements/audit.txt
	@touch $@

##@ Measure it
.PHONY: bench bench-overhead bench-first-trial bench-api-cost bench-many-studies bench-many-workers bench-charts bench-utilisation bench-pruning bench-importances bench-storms storm
bench: programs ## Measure all, and render docs/benchmarks.md: an hour (LONGER=1: hours)
	@$(RUN) -m bench all $(if $(LONGER),--longer)

bench-overhead: programs ## Time lost between trials: bare Optuna, workers as processes, workers in a cluster, a Job for each trial
	@$(RUN) -m bench overhead $(if $(LONGER),--longer)

bench-first-trial: programs ## From kubectl apply to the first claimed trial, and to the first reported metric
	@$(RUN) -m bench first-trial $(if $(LONGER),--longer)

bench-api-cost: programs ## Requests to the API server for each trial, by who asks
	@$(RUN) -m bench api-cost $(if $(LONGER),--longer)

bench-many-studies: programs ## The operator over 1,000 studies: CPU, memory, age of the status
	@$(RUN) -m bench many-studies $(if $(LONGER),--longer)

bench-many-workers: programs ## Claims a second by hundreds of workers of one study
	@$(RUN) -m bench many-workers $(if $(LONGER),--longer)

bench-charts: programs ## A study's page with up to 10,000 trials
	@$(RUN) -m bench charts $(if $(LONGER),--longer)

bench-utilisation: programs ## The share of a worker's time that is training
	@$(RUN) -m bench utilisation $(if $(LONGER),--longer)

bench-pruning: $(STAMP) ## Epochs and best values with and without the median pruner, over seeds
	@$(RUN) -m bench pruning $(if $(LONGER),--longer)

bench-importances: $(STAMP) ## Parameter importances beside Optuna's evaluators, where the truth is known
	@$(RUN) -m bench importances $(if $(LONGER),--longer)

bench-storms: programs ## Storms of kills over two studies: what was lost, and how long each fault is felt
	@$(RUN) -m bench storms $(if $(LONGER),--longer)

storm: programs ## Kill, delete, restart, rescale and suspend at random, and count what is left (SEED= MINUTES= TRIALS= WORKERS= APART=1: one at a time)
	@$(RUN) -m tests.storm --minutes $(or $(MINUTES),5) --trials $(or $(TRIALS),200) --workers $(or $(WORKERS),8) $(if $(SEED),--seed $(SEED)) $(if $(APART),--apart)

##@ Change it
.PHONY: install fmt lint types imports manifests manifests-check lock
install: $(STAMP) ## Create .venv with everything, hash-pinned
$(STAMP): requirements/dev.txt requirements/uv.txt pyproject.toml
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@echo "installing the Python dependencies (torch is large; the first time takes minutes)"
	@$(BIN)/uv pip sync --quiet --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

fmt: $(STAMP) ## Format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

lint: $(STAMP) ## Style and common mistakes
	@$(BIN)/ruff format --check --quiet || { echo "run 'make fmt'"; exit 1; }
	@$(BIN)/ruff check --quiet

types: $(STAMP) ## mypy, strict
	@$(BIN)/mypy --no-error-summary $(PACKAGES)

imports: $(STAMP) ## Which package may import which
	@$(BIN)/lint-imports --no-logo > $(VENV)/imports.log 2>&1 || { cat $(VENV)/imports.log; exit 1; }

manifests: $(STAMP) ## Generate the CRD and the rendered manifests
	@$(RUN) -m manifests.render

manifests-check: $(STAMP) ## Fail when the generated files are not those that are committed
	@$(RUN) -m manifests.render --check

lock: $(STAMP) ## Resolve the dependencies again
	@set -e; compile="$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --python-version 3.11"; \
	$$compile pyproject.toml --extra local --group dev -o requirements/dev.txt; \
	for side in operator trial; do $$compile pyproject.toml -c requirements/dev.txt --extra $$side -o requirements/$$side.txt; done; \
	$$compile --group audit -o requirements/audit.txt; \
	grep -A1000 '^uv==' requirements/dev.txt | awk 'NR > 1 && !/^ / {exit} !/# via/ {print}' > requirements/uv.txt

##@ Ship it
.PHONY: images
images: $(STAMP) ## Build both images with docker, podman or buildah (REGISTRY=... PUSH=1 for your own registry, BASE_IMAGE=python@sha256:... to pin what they are built on)
	@$(RUN) -m cluster images $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(PUSH),--push) $(if $(BASE_IMAGE),--base-image $(BASE_IMAGE))

##@ A Kubernetes on this machine, without Docker
.PHONY: programs cluster-up cluster-down cluster-env cluster-status
programs: $(STAMP) ## Build Kubernetes, Helm, CoreDNS, promtool and an S3 server into the cache (the first time about a quarter of an hour)
	@$(RUN) -m cluster build

cluster-up: $(STAMP) ## Start it (root; the first time builds Kubernetes, about ten minutes)
	@$(RUN) -m cluster up

cluster-down: $(STAMP) ## Stop it and leave nothing behind
	@$(RUN) -m cluster down

cluster-env: $(STAMP) ## Print what makes a shell talk to it: eval "$$(make -s cluster-env)"
	@$(RUN) -m cluster env

cluster-status: $(STAMP) ## Say what runs
	@$(RUN) -m cluster status
