# Everything a person does here is one of these targets; CI calls the same ones.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
READY := $(VENV)/.ready
INSTALLING := $(VENV)/.installing
SIGNING := .venv-signing
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
# In CI a test may skip only where the data sets, which are not this repository's to publish, do not lie beside it.
NO_SKIPS := $(if $(CI),$(if $(wildcard ../shared/data/*.tar.gz),--no-skips))
WORKERS ?= 2
TEST = $(RUN) python -m pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder
# One after the other: these tests judge latency, which other work on this machine's processors would change.
TEST_FLEET = $(RUN) python -m pytest --durations=25 $(NO_SKIPS) tests/system/fleet_faults tests/system/lab/test_lab_arm64.py
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
# Which build of torch (.ci/torch): cpu, or cuda for a machine with a GPU. An environment keeps the one that it has.
HAS_TORCH := $(shell cat $(VENV)/.torch 2>/dev/null)
TORCH ?= $(or $(HAS_TORCH),cpu)
INSTALL_TORCH := $(VENV)/bin/python .ci/torch
OTHER_TORCH := $(if $(filter-out $(HAS_TORCH),$(TORCH)),other-torch)
SIGNING_PIP := $(SIGNING)/bin/python -m pip --disable-pip-version-check

.PHONY: help
help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Through a link, another checkout's environment would be written to, or emptied.
define no_link
@test ! -L $(1) || { echo "error: $(1) is a link to $$(readlink $(1)), which is not this checkout's to change; expected: a folder; remedy: rm $(1), then run again"; exit 1; }
endef

.PHONY: other-torch
other-torch: ;

# pip unpacks gigabytes: beside the environment, because /tmp is often a small file system in memory.
$(READY): export TMPDIR = $(abspath $(VENV))/tmp
$(READY): pyproject.toml constraints.txt constraints-dev.txt device/pyproject.toml .ci/torch $(OTHER_TORCH)
	$(call no_link,$(VENV))
	@command -v "$(PYTHON)" >/dev/null || { echo "error: Python 3.11 is not installed; remedy: install python3.11, or name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: $(PYTHON) is $$("$(PYTHON)" -V); expected: Python 3.11; remedy: make PYTHON=/path/to/python3.11"; exit 1; }
	@# Create the environment again after an interrupted installation: pip may be missing, or a package incomplete.
	@# Also for a different build of torch: the packages that the previous build required would remain.
	@test ! -e $(INSTALLING) && test "$(HAS_TORCH)" = "$(TORCH)" && $(VENV)/bin/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV) || { rm -rf $(VENV); echo "error: no virtual environment could be made; remedy: apt-get install python3.11-venv"; exit 1; }
	@echo "installing the pinned dependencies into $(VENV) (a few minutes, once)"
	@touch $(INSTALLING) && mkdir -p "$$TMPDIR"
	@$(INSTALL_TORCH) "$(TORCH)" || { rm $(INSTALLING); echo "error: torch ($(TORCH)) could not be installed; remedy: see the message above, then run again; TORCH_CPU_INDEX=URL names another index of CPU builds, make setup TORCH=cuda takes the other build"; exit 1; }
	@echo "$(TORCH)" > $(VENV)/.torch
	@$(PIP) install --quiet --constraint constraints.txt --constraint constraints-dev.txt --editable 'device[onnx,litert]' --editable '.[dev]' || { rm $(INSTALLING); echo "error: the dependencies could not be installed; remedy: see pip's message above, then run again; what was installed is kept"; exit 1; }
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
setup: $(READY) $(SIGNING)/.ready  ## make .venv with the pinned dependencies (TORCH=cuda for a machine with a GPU)

.PHONY: setup-signing
setup-signing: $(SIGNING)/.ready  ## make .venv-signing alone: what signs needs nothing else

.PHONY: system-packages
system-packages:  ## install the programs that tests need (Debian, Ubuntu; asks for root)
	@.ci/packages

.PHONY: repro
repro: $(READY)  ## build the task that params.yaml names, end with a summary
	@$(RUN) python -m stages.restore --lock
	@$(RUN) dvc repro || { $(RUN) python -m stages.restore; exit 1; }
	@$(RUN) python -m stages.summary

# tests/README.md says what each tier takes, and why.
.PHONY: test
test: $(READY) $(SIGNING)/.ready  ## run the tests that every change must pass (15 minutes)
	@$(TEST) --durations=25 $(NO_SKIPS)

.PHONY: test-fast
test-fast: $(READY) $(SIGNING)/.ready  ## run the quick tests (under 2 minutes)
	@$(TEST) -m "not slow"

.PHONY: test-all
test-all: $(READY) $(SIGNING)/.ready  ## run every test there is, then test-fleet (as root; hours)
	@CRASH_DAY=all FUZZ_EXAMPLES=1500 $(TEST) --durations=25 -m "not fleet" $(NO_SKIPS); status=$$?; \
	    $(TEST_FLEET) -m fleet && exit $$status

.PHONY: test-crash
test-crash: $(READY)  ## kill the agent at every fault point, and cut the power (that part as root)
	@CRASH_DAY=all $(TEST) -m "not fleet" tests/system/crash

.PHONY: test-fleet
test-fleet: $(READY)  ## every fault of a rollout, on booted devices (as root; an hour; docs/explanation/faults.md)
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
format: $(READY)  ## put the code into the house's format
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

.PHONY: demo
demo: $(READY) $(SIGNING)/.ready  ## five simulated devices: a good release goes out, a bad one comes back (after make repro)
	@$(RUN) python -m examples.demo

.PHONY: bench
bench: $(READY)  ## time every stage, DVC's and the imports' share, against one script without DVC
	@$(RUN) python -m benchmarks.pipeline

.PHONY: wheelhouse
wheelhouse: PYTHON_VERSION ?= 3.11
wheelhouse: ARCHITECTURE ?= x86_64
wheelhouse: $(READY)  ## gather what devices install the agent from, offline (ARCHITECTURE=aarch64 for a Raspberry Pi)
	@$(RUN) python -m fleet.wheelhouse --python $(PYTHON_VERSION) --architecture $(ARCHITECTURE)

.PHONY: lab
lab: N ?= 10
lab: ARM64 ?= 0
lab: $(READY)  ## boot N=10 Debian devices until ^C, ARM64=0 of them aarch64 (as root; docs/how-to/run-a-lab.md)
	@$(RUN) python -m lab --devices $(N) --arm64 $(ARM64)

.PHONY: bench-agent
bench-agent: $(READY)  ## time the agent against bare interpreters, over HTTP, while it switches; its memory
	@$(RUN) python -m benchmarks.agent

.PHONY: bench-fleet
bench-fleet: N ?= 10 40
bench-fleet: STAND_INS ?= 20 50 100 200
bench-fleet: $(READY)  ## what a rollout costs beside a plain playbook, by size (as root; N="10 40" devices with agents)
	@$(RUN) python -m benchmarks.fleet --agents $(N) --stand-ins $(STAND_INS) $(OPTIONS)

.PHONY: docs
docs: $(READY)  ## build the documentation's site in .work/docs/html; a dead link is an error
	@$(RUN) python -m docs.generator.site

.PHONY: docs-reference
docs-reference: $(READY)  ## write the reference pages that are generated from the code
	@$(RUN) python -m docs.generator.reference

.PHONY: docs-images
docs-images: $(READY) $(SIGNING)/.ready  ## take the pictures of the README again: the report page, a rollout (after make repro)
	@$(RUN) python -m docs.generator.pictures

.PHONY: clean
clean:  ## remove what the pipeline and its plots wrote in the work tree (DVC's cache stays)
	git clean --force -d -X --quiet data models reports .work dvc_plots
