# make study   the whole study, from nothing to figures/ and results/
# make test    the tests
CORES ?= all
CONFIG ?= config/config.yaml
# The first of these that is 3.11 or newer, or PYTHON=/path/to/python. For 3.14 a package must be compiled: it comes late.
PYTHON ?= python3.13 python3.12 python3.11 python3.14 python3 python
VENV ?= .venv
OLDEST ?= .venv-oldest
PEERS ?= .venv-peers
# By its version alone, without a hash: builds for the CPU and for CUDA have one version.
TORCH ?= torch==2.13.0

export PATH := $(abspath $(VENV))/bin:$(PATH)
# One thread for each process: jobs fill the cores, and the same bits come out on any number of them.
export OPENBLAS_NUM_THREADS := 1
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

# Snakemake and pip write the folder's path unquoted into commands and scripts.
ifneq ($(words $(CURDIR)),1)
$(error the path of this folder must not hold spaces: $(CURDIR))
endif

.SILENT:
.PHONY: moved study report archive docs test test-oldest peer-test slow-test fault-test extending-test fuzz-test lint format bench lock clean clean-venv

# Where the results of a study are; a mistake in its configuration is one line, before anything is built.
RESULTS_OF = python -m deepbures check config/config.yaml "$(CONFIG)"

# Progress bars where there is a terminal, plain lines in a log.
study: $(VENV)/.installed
	$(RESULTS_OF) > /dev/null
	snakemake --cores $(CORES) --configfile "$(CONFIG)" $$(test -t 1 && echo --logger rich)

# One HTML file with every figure, table and claim of the study, beside its other results.
report: study
	snakemake --cores 1 --configfile "$(CONFIG)" --report "$$($(RESULTS_OF))/report.html"

# One zip with the configuration, aggregates, notebooks, figures, tables and checksums.
archive: study
	snakemake --cores 1 --configfile "$(CONFIG)" -- archive

docs: $(VENV)/.installed
	mkdocs build --strict

test: $(VENV)/.installed
	python -m pytest -n auto --dist loadgroup

# The fast tests with the oldest versions that pyproject.toml allows, in an environment of their own.
test-oldest: $(VENV)/.installed
	$(VENV)/bin/python -m venv $(OLDEST)
	$(VENV)/bin/python tests/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(OLDEST)/constraints.txt --editable '.[dev]'
	PATH=$(abspath $(OLDEST))/bin:$$PATH $(OLDEST)/bin/python -m pytest -n auto

# PyTorch and JAX, in an environment of their own.
peer-test: $(PEERS)/.installed
	$(PEERS)/bin/python -m pytest -o addopts= tests/peers

slow-test: $(VENV)/.installed
	python -m pytest -n auto --dist loadgroup -m slow

fault-test: $(VENV)/.installed
	python -m pytest -n auto -m faults

# The fast tests once more for each example of docs/examples, in a copy of the project with that example.
extending-test: $(VENV)/.installed
	python -m pytest -m extending

# Tens of thousands of mutated files and configurations.
fuzz-test: $(VENV)/.installed
	python -m pytest -n auto -m fuzz

lint: $(VENV)/.installed
	ruff format --check
	ruff check
	snakefmt --check Snakefile workflow
	mypy

format: $(VENV)/.installed
	ruff format
	ruff check --fix
	snakefmt Snakefile workflow

bench: $(VENV)/.installed
	python benchmarks/results.py

# Needs uv (pip install uv); the lock holds versions and hashes, and no address.
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" --output-file requirements.lock
	uv pip compile tests/peers/requirements.in --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" --output-file requirements-peers.lock

# In a folder that was copied or moved the environment is still that of the other folder, and runs its code.
ifneq ($(shell test -e $(VENV)/bin/pip && ! grep -q "$(abspath $(VENV))/" $(VENV)/bin/pip && echo moved),)
$(VENV)/.installed: moved
moved:
	echo "$(VENV) is that of another folder: it is made again"
	rm -rf $(VENV)
endif

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(VENV)/bin/pip || { PATH=$${PATH#*:}; \
		for python in $(PYTHON); do \
			$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
		done; \
		test "$$python" || { echo "make: none of $(PYTHON) is Python 3.11 or newer; make PYTHON=/path/to/python" >&2; exit 1; }; \
		$$python -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "make: $$python lacks venv; on Debian and Ubuntu: apt-get install $$python-venv" >&2; exit 1; }; \
		echo "$(VENV) from $$python, $$($$python --version)"; \
		$$python -m venv $(VENV); }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock || { \
		echo "make: if a package failed to build, install a C compiler and Python's headers (apt-get install gcc python3-dev)," \
			"or make clean-venv and make PYTHON=python3.13" >&2; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

$(PEERS)/.installed: requirements-peers.lock pyproject.toml $(VENV)/.installed
	$(VENV)/bin/python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-peers.lock
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

clean:
	rm -rf results figures logs .snakemake

clean-venv:
	rm -rf $(VENV) $(OLDEST) $(PEERS)
