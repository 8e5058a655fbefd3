# Everything a person needs, from a fresh Debian or Ubuntu machine on:
#   make run    install, start both roles on the simulator, show one round trip, keep serving
#   make test   install what the tests need (system packages included) and run them all
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

RUN_PACKAGES := python3 python3-venv
WISHED_PACKAGES := swtpm
# The second line builds tpm2-pytss.
TEST_PACKAGES := $(RUN_PACKAGES) curl fuse3 openssl swtpm swtpm-tools tpm2-tools \
	gcc libtss2-dev pkg-config python3-dev

.PHONY: help run demo test check bench kernel-test image-test peers-test lock clean packages-run packages-test

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

run: $(VENV)/.run ## install, start both roles on the simulator, show a round trip, keep serving
	$(BIN)/svsm-attest demo --serve

demo: $(VENV)/.run ## the same round trip on a free port; exits 0 when it is affirmed
	$(BIN)/svsm-attest demo

test: $(VENV)/.test ## install what the tests need and run them all
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest --cov=app --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=95 $(PYTEST_ARGS)
	@strict=$$($(BIN)/python -m coverage report --fail-under=100 --include='app/wire/*,app/trust/*,app/appraisal/*') \
	  || { echo "$$strict"; exit 1; }

check: $(VENV)/.test ## format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test ## verifications per second beside the bare P-384 rate of the same run
	$(BIN)/python benchmarks/verification.py

kernel-test: $(VENV)/.test ## the configfs backend and the vTPM against a real kernel in QEMU
	tests/kernel/run

image-test: $(VENV)/.test ## build the container image and run it for real
	tests/image/run

peers-test: $(VENV)/.test ## go-sev-guest's check, snpguest and the igvm crate beside ours
	tests/interop/peers/run

lock: ## pin every dependency again (needs uv)
	uv pip compile -q pyproject.toml --universal --python-version 3.11 --no-header --generate-hashes --no-emit-index-url -o requirements.lock
	uv pip compile -q pyproject.toml --group dev -c requirements.lock --universal --python-version 3.11 --no-header --generate-hashes --no-emit-index-url -o requirements-dev.lock
	uv pip compile -q --group build --universal --python-version 3.11 --no-header --generate-hashes --no-emit-index-url -o requirements-build.lock

clean: ## remove what was installed and built here
	rm -rf $(VENV) .run .coverage* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# One line a package that is missing; nothing is asked of apt where all are there.
define install-packages
missing=$$(for package in $(1); do dpkg-query -W -f='$${db:Status-Status}\n' $$package 2>/dev/null | grep -qx installed || echo $$package; done); \
if [ -n "$$missing" ]; then \
  if ! command -v apt-get >/dev/null; then echo "please install: "$$missing; exit 0; fi; \
  if [ "$$(id -u)" = 0 ]; then sudo=; elif command -v sudo >/dev/null; then sudo=sudo; else echo "please install as root: "$$missing; exit 1; fi; \
  echo "installing "$$missing; \
  $$sudo apt-get update -qq; \
  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
fi
endef

packages-run:
	@$(call install-packages,$(RUN_PACKAGES))
	@( $(call install-packages,$(WISHED_PACKAGES)) ) || echo "going on without $(WISHED_PACKAGES): the simulated VM will have no TPM, and give no quotes"

packages-test:
	@$(call install-packages,$(TEST_PACKAGES))

$(VENV)/.run: pyproject.toml requirements.lock requirements-build.lock | packages-run
	@echo "installing the Python packages into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements.lock -r requirements-build.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: requirements-dev.lock $(VENV)/.run | packages-test
	@echo "installing what the tests need into $(VENV); one package is compiled, which takes a minute"
	@$(PIP) install --require-hashes --no-build-isolation -r requirements-dev.lock
	@touch $@
