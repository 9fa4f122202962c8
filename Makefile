# Two commands for newcomers: make run, make test. The others are for those who change Aftertone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help run test check lint types arrows fmt crash crash-kills crash-disk crash-vm fuzz bench bench-sip clean
help:            ## this list
	@grep -E '^[a-z-]+: .*## |^[a-z-]+:  *## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("Aftertone needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make run PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Aftertone into $(VENV) (once; about half a minute) ..."
	@$(PIP) install --quiet --requirement requirements.lock
	@$(PIP) install --quiet --no-deps --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.lock
	@echo "Installing what the tests need ..."
	@$(PIP) install --quiet --requirement requirements-dev.lock
	@touch $@

run: $(VENV)/installed   ## install into .venv and start the answering machine
	@exec $(BIN)/aftertone serve $(ARGS)

test: $(VENV)/installed-dev   ## every test that this machine can run; prints why it skipped any
	@$(BIN)/pytest --numprocesses 3 $(ARGS)

check: lint types arrows test   ## what CI runs

lint: $(VENV)/installed-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/deptry src

types: $(VENV)/installed-dev
	@$(BIN)/mypy

arrows: $(VENV)/installed-dev
	@$(BIN)/lint-imports

fmt: $(VENV)/installed-dev   ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

crash: crash-disk crash-kills   ## power cuts of real file systems (root), then 200 kills: no message may be lost

crash-kills: $(VENV)/installed-dev   ## random kills of the real program, 200 in a row
	@$(BIN)/python -m tests.crash.kills $(ARGS)

crash-disk: $(VENV)/installed-dev   ## power cuts of ext4, xfs and btrfs, lying disks, deliberate bugs, failing writes; needs root
	@$(BIN)/python -m tests.crash.powercut.real_disk --mutants $(ARGS)
	@$(BIN)/python -m tests.crash.powercut.failed_sync

crash-vm: $(VENV)/installed-dev   ## a virtual machine, cut 20 times in the middle of calls; needs root and half an hour
	@$(BIN)/python -m tests.crash.vm $(ARGS)

fuzz: $(VENV)/installed-dev   ## ten minutes of hostile input for every parser
	@$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(VENV)/installed-dev   ## packets per second and CPU per call-minute, beside the goals
	@$(BIN)/python bench/recordings.py $(ARGS)

bench-sip: $(VENV)/installed-dev   ## one SIP message, whole calls, hostile headers; beside sippy and aiosipua
	@$(PIP) install --quiet --requirement bench/requirements.txt
	@PYTHONPATH=. $(BIN)/python bench/sip.py $(ARGS)

lock: $(VENV)/installed-dev   ## write the lock files again from pyproject.toml
	@$(PIP) install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --upgrade -q --no-header -o requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 -q --no-header -c requirements.lock -o requirements-dev.lock

clean:           ## remove what was installed and cached; never the data folder
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
