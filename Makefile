# The targets are the commands that people use in this repository. CI calls the same targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
READY := $(VENV)/.ready
INSTALLING := $(VENV)/.installing
SIGNING := .venv-signing
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
# In CI, a skipped test is an error if the data sets are in the folder `shared` next to the checkout. This repository may
# not publish the data sets, so they can be missing there.
NO_SKIPS := $(if $(CI),$(if $(wildcard ../shared/data/*.tar.gz),--no-skips))
WORKERS ?= 3
TEST = $(RUN) python -m pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder
# These tests run one after the other because they judge latency, which other work on the same processors would change.
TEST_FLEET = $(RUN) python -m pytest --durations=25 $(NO_SKIPS) tests/system/fleet_faults tests/system/lab/test_lab_arm64.py
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
# The build of torch (.ci/torch): cpu, or cuda for a machine with a GPU. Without TORCH, an environment keeps its build.
HAS_TORCH := $(shell cat $(VENV)/.torch 2>/dev/null)
TORCH ?= $(or $(HAS_TORCH),cpu)
INSTALL_TORCH := $(VENV)/bin/python .ci/torch
OTHER_TORCH := $(if $(filter-out $(HAS_TORCH),$(TORCH)),other-torch)
SIGNING_PIP := $(SIGNING)/bin/python -m pip --disable-pip-version-check

.PHONY: help
help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# If the environment is a link, make would change or delete the environment of another checkout.
define no_link
@test ! -L $(1) || { echo "error: $(1) is a link to $$(readlink $(1)), which may belong to another checkout; expected: a folder; remedy: remove the link (rm $(1)), then run make again"; exit 1; }
endef

.PHONY: other-torch
other-torch: ;

# pip unpacks gigabytes into the environment's folder, because /tmp is often a small file system in memory.
$(READY): export TMPDIR = $(abspath $(VENV))/tmp
$(READY): pyproject.toml constraints.txt constraints-dev.txt device/pyproject.toml .ci/torch $(OTHER_TORCH)
	$(call no_link,$(VENV))
	@command -v "$(PYTHON)" >/dev/null || { echo "error: Python 3.11 was not found; remedy: install python3.11, or give its path: make PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: $(PYTHON) is $$("$(PYTHON)" -V); expected: Python 3.11; remedy: make PYTHON=/path/to/python3.11"; exit 1; }
	@# Create the environment again after an interrupted installation, because pip or parts of a package may be missing.
	@# Create it again for a different build of torch too, because the packages of the previous build would remain.
	@test ! -e $(INSTALLING) && test "$(HAS_TORCH)" = "$(TORCH)" && $(VENV)/bin/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV) || { rm -rf $(VENV); echo "error: the virtual environment $(VENV) could not be created; remedy: apt-get install python3.11-venv"; exit 1; }
	@echo "installing the pinned dependencies into $(VENV) (a few minutes, once)"
	@touch $(INSTALLING) && mkdir -p "$$TMPDIR"
	@$(INSTALL_TORCH) "$(TORCH)" || { rm $(INSTALLING); echo "error: the $(TORCH) build of torch could not be installed; remedy: see pip's message above, then run again; to use another index of CPU builds, set TORCH_CPU_INDEX=URL; to use the CUDA build, run make setup TORCH=cuda"; exit 1; }
	@echo "$(TORCH)" > $(VENV)/.torch
	@$(PIP) install --quiet --constraint constraints.txt --constraint constraints-dev.txt --editable 'device[onnx,litert]' --editable '.[dev]' || { rm $(INSTALLING); echo "error: the dependencies could not be installed; remedy: see pip's message above, then run again; packages that are already installed are kept"; exit 1; }
	@rm -r $(INSTALLING) "$$TMPDIR"
	@touch $@

# Model signing needs a newer typing-extensions than the TFLite converter allows (fleet/releases/signing.py).
$(SIGNING)/.ready: constraints-signing.txt
	$(call no_link,$(SIGNING))
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is not Python 3.11; remedy: make PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -m venv --clear $(SIGNING)
	@$(SIGNING_PIP) install --quiet --no-deps --requirement constraints-signing.txt || { echo "error: model-signing could not be installed; remedy: see pip's message above, then run again"; exit 1; }
	@touch $@

.PHONY: setup
setup: $(READY) $(SIGNING)/.ready  ## create .venv and .venv-signing with pinned versions (TORCH=cuda for a GPU)

.PHONY: setup-signing
setup-signing: $(SIGNING)/.ready  ## create only .venv-signing, which is enough to sign bundles

.PHONY: system-packages
system-packages:  ## install the programs that tests need (Debian, Ubuntu; asks for root)
	@.ci/packages

.PHONY: repro
repro: $(READY)  ## build the task that params.yaml names, then print a summary
	@$(RUN) python -m stages.restore --lock
	@$(RUN) dvc repro || { $(RUN) python -m stages.restore; exit 1; }
	@$(RUN) python -m stages.summary

# tests/README.md describes which tests each of these targets runs.
.PHONY: test
test: $(READY) $(SIGNING)/.ready  ## run the tests that every change must pass (15 minutes)
	@$(TEST) --durations=25 $(NO_SKIPS)

.PHONY: test-fast
test-fast: $(READY) $(SIGNING)/.ready  ## run the quick tests (under 2 minutes)
	@$(TEST) -m "not slow"

.PHONY: coverage
coverage: $(READY) $(SIGNING)/.ready  ## run the quick tests and print how much of each package they ran
	@$(TEST) --cov --cov-report= -m "not slow"

.PHONY: test-all
test-all: $(READY) $(SIGNING)/.ready  ## run every test, then test-fleet (as root; takes hours)
	@CRASH_DAY=all FUZZ_EXAMPLES=1500 $(TEST) --durations=25 -m "not fleet" $(NO_SKIPS); status=$$?; \
	    $(TEST_FLEET) -m fleet && exit $$status

.PHONY: test-crash
test-crash: $(READY)  ## run the tests that kill the agent at every fault point or cut the power (power cuts need root)
	@CRASH_DAY=all $(TEST) -m "not fleet" tests/system/crash

.PHONY: test-fleet
test-fleet: $(READY)  ## run the tests that inject faults into rollouts on booted devices (as root; an hour)
	@$(TEST_FLEET) -m "fleet or slow"

.PHONY: lint
lint: lint-style lint-types lint-imports lint-yaml lint-playbooks  ## check style, types, imports, YAML and playbooks

.PHONY: lint-style lint-types lint-imports lint-yaml lint-playbooks
lint-style: $(READY)
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) vermin --quiet --no-tips --target=3.10- device/edge_agent

lint-types: $(READY)
	@$(RUN) mypy

lint-imports: $(READY)
	@$(RUN) lint-imports --no-logo

lint-yaml: $(READY)
	@$(RUN) yamllint --strict .

lint-playbooks: $(READY)
	@$(RUN) ansible-playbook --syntax-check --inventory inventory/example playbooks/*.yml >/dev/null
	@$(RUN) ansible-lint -q playbooks

.PHONY: format
format: $(READY)  ## format the code
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

.PHONY: demo
demo: $(READY) $(SIGNING)/.ready  ## roll a good and a bad release out to five simulated devices (after make repro)
	@$(RUN) python -m examples.demo

.PHONY: bench
bench: $(READY)  ## measure the time of every stage, of DVC and of imports; compare with a script without DVC
	@$(RUN) python -m benchmarks.pipeline

.PHONY: wheelhouse
wheelhouse: PYTHON_VERSION ?= 3.11
wheelhouse: ARCHITECTURE ?= x86_64
wheelhouse: $(READY)  ## collect the packages for an offline install of the agent (ARCHITECTURE=aarch64 for a Raspberry Pi)
	@$(RUN) python -m fleet.wheelhouse --python $(PYTHON_VERSION) --architecture $(ARCHITECTURE)

.PHONY: lab
lab: N ?= 10
lab: ARM64 ?= 0
lab: $(READY)  ## boot N=10 Debian devices until Ctrl-C, ARM64=0 of them aarch64 (as root; docs/how-to/run-a-lab.md)
	@$(RUN) python -m lab --devices $(N) --arm64 $(ARM64)

.PHONY: bench-agent
bench-agent: $(READY)  ## measure the agent: latency compared with the runtime alone, HTTP, switches, memory
	@$(RUN) python -m benchmarks.agent

.PHONY: bench-soak
bench-soak: SECONDS ?= 3600
bench-soak: $(READY)  ## compare an hour of mixed traffic with the right responses; memory, descriptors and threads
	@$(RUN) python -m benchmarks.agent.soak --seconds $(SECONDS)

.PHONY: bench-fleet
bench-fleet: N ?= 10 40
bench-fleet: STAND_INS ?= 20 50 100 200
bench-fleet: $(READY)  ## compare the cost of a rollout with a plain playbook (as root; N="10 40" devices with agents)
	@$(RUN) python -m benchmarks.fleet --agents $(N) --stand-ins $(STAND_INS) $(OPTIONS)

.PHONY: docs
docs: $(READY)  ## build the documentation website in .work/docs/html; a dead link is an error
	@$(RUN) python -m docs.generator.site

.PHONY: docs-reference
docs-reference: $(READY)  ## write the reference pages that are generated from the code
	@$(RUN) python -m docs.generator.reference

.PHONY: docs-images
docs-images: $(READY) $(SIGNING)/.ready  ## create the README's pictures of the report page and a rollout again (after make repro)
	@$(RUN) python -m docs.generator.pictures

.PHONY: clean
clean:  ## remove the files that the pipeline and its plots wrote in the work tree (DVC's cache is kept)
	git clean --force -d -X --quiet data models reports .work dvc_plots
