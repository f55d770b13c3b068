# Every target sets up what it needs: a virtual environment in the checkout and the extras of
# pyproject.toml. All it asks of the machine is python3 (3.11 or newer, with venv) and make.

PYTHON ?= python3
VENV ?= .venv
# Worker processes of the tests, and notebooks that are executed at a time.
JOBS ?= 2

VENV_PYTHON := $(VENV)/bin/python
# NPROC is XLA's number of threads: one per core by default, in every worker. Work stealing starts
# from contiguous shares, so neighbouring tests find each other's compiled functions.
PYTEST := NPROC=1 $(VENV_PYTHON) -m pytest -n $(JOBS) --dist worksteal --durations=20
# What is the same to the bit is so only as users' programs are compiled. The other tests are compiled quickly (see
# tests/conftest.py), and what is about numbers once more, as users' programs, in `make test-slow`.
BITS := tests/test_bits.py tests/methods/test_equivalences.py
NUMBERS := tests/builders tests/subproblem/test_tiles.py tests/solvers/test_secular_gauss.py \
  tests/solvers/test_secular_newton.py tests/test_golden.py tests/test_identification.py tests/xla/test_many_leaves.py \
  tests/test_numerics.py
MORE_NUMBERS := tests/regularizers/test_subproblem.py::test_exact_solvers_leave_a_kkt_residual_at_rounding \
  tests/subproblem/test_small_leaves.py::test_solutions_are_those_of_leaves_solved_one_by_one \
  tests/benchmarks/test_zoo.py::test_the_family_with_maxima_comes_to_what_the_page_says
# CACHE=DIR keeps compiled programs from run to run.
export COMPILATION_CACHE := $(if $(CACHE),$(abspath $(CACHE)))

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Two pips in one environment would get in each other's way.
.NOTPARALLEL:
# Keep the stamps; make would take them for intermediate files.
.SECONDARY:
.PHONY: help demo test test-slow test-all golden mutations compiled zoo docs notebooks test-onnx lint format format-check types check build dist-check release-check clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do \
	  printf '  make %-13s %s\n' "$$name" "$$text"; done
	@echo "  PYTHON=python3.13 picks the Python, VENV=DIR the environment, JOBS=4 the test workers"

demo: $(VENV)/.installed-examples ## train a network on digits to a settled structure, make it small, then to a size
	$(VENV_PYTHON) -m examples.digits
	$(VENV_PYTHON) -m examples.sparse_to_small
	$(VENV_PYTHON) -m examples.make_it_small --keep 0.3

test: $(VENV)/.installed-test ## the tests and doctests, without the slow ones
	@failed=0; \
	$(PYTEST) $(BITS) || failed=1; \
	COMPILATION=quick $(PYTEST) -m "not slow" $(BITS:%=--ignore=%) || failed=1; \
	exit $$failed

test-slow: $(VENV)/.installed-test ## the slow tests: many devices, whole experiments, numbers as compiled for users
	@failed=0; \
	$(PYTEST) $(NUMBERS) $(MORE_NUMBERS) || failed=1; \
	COMPILATION=quick $(PYTEST) -m slow $(NUMBERS:%=--ignore=%) $(MORE_NUMBERS:%=--deselect=%) || failed=1; \
	exit $$failed

test-all: test test-slow ## all tests

golden: $(VENV)/.installed-test ## only the golden trajectories and the contracts
	@failed=0; \
	$(PYTEST) tests/test_golden.py || failed=1; \
	COMPILATION=quick $(PYTEST) -m "not slow" tests/test_optax_contract.py tests/test_bad_input.py || failed=1; \
	exit $$failed

mutations: $(VENV)/.installed-test ## put small faults into the package; each must turn a test red
	$(VENV_PYTHON) -m tests.mutations --jobs $(JOBS)

# The accelerators' builds of JAX are in no extra of the package: who trains on CPUs does not want them.
compiled: ## what a step costs as compiled for an H100 and a TPU v5e, neither of which is needed
	@for chip in cuda:h100 tpu:v5e; do \
	  $(MAKE) .venv-$${chip%:*}/.installed-chip && \
	  .venv-$${chip%:*}/bin/python -m benchmarks.compiled --chip $${chip#*:} $(COMPILED) || exit 1; \
	done
	.venv-tpu/bin/python -m benchmarks.compiled --chip v5e --sharded --trees decoder $(COMPILED)

zoo: $(VENV)/.installed-benchmarks ## what compaction leaves of 86 architectures, and the least by hand
	$(VENV_PYTHON) -m benchmarks.zoo --json docs/zoo.json

.venv-cuda/.installed-chip: CHIP := 'jax[cuda13-local]' nvidia-cuda-nvcc
.venv-tpu/.installed-chip: CHIP := 'jax[tpu]'
.venv-cuda/.installed-chip .venv-tpu/.installed-chip: pyproject.toml
	@$(MAKE) VENV=$(@D) $(@D)/.created
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable . $(CHIP)
	@touch $@

test-onnx: ## the ONNX recipe, in .venv-onnx: jax2onnx wants other versions of some packages
	@$(MAKE) VENV=.venv-onnx .venv-onnx/.installed-onnx
	NPROC=1 .venv-onnx/bin/python -m pytest tests/onnx -W default

# No warning may be left in what readers see. What XLA logs of a slow machine is none.
notebooks: $(VENV)/.installed-notebooks ## execute the notebooks, into out/notebooks
	mkdir -p out/notebooks
	rm -f out/notebooks/*.ipynb out/notebooks/.executed
	ls notebooks/*.ipynb | TF_CPP_MIN_LOG_LEVEL=3 NPROC=1 PYTHONPATH=$(CURDIR) xargs -n 1 -P $(JOBS) \
	  $(VENV_PYTHON) -m jupyter_core execute --startup_timeout=300 --output='../out/notebooks/{notebook_name}'
	@if grep -l '"name": "stderr"' out/notebooks/*.ipynb; then \
	  echo "These wrote to stderr, as warnings do." >&2; exit 1; fi
	@touch out/notebooks/.executed

out/notebooks/.executed: $(wildcard notebooks/*.ipynb)
	@$(MAKE) notebooks

lint: $(VENV)/.installed-lint ## ruff's lint rules, the spelling, and the order of the package's folders
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m codespell_lib
	PYTHONPATH=. $(VENV_PYTHON) -c 'from importlinter.cli import lint_imports_command as run; run()' --no-cache

format: $(VENV)/.installed-lint ## rewrite files in ruff's format
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

format-check: $(VENV)/.installed-lint ## fail where `make format` would rewrite the layout
	$(VENV_PYTHON) -m ruff format --check .

# The second line asks for a known type of every name without a leading underscore, as a user's own checker would see
# it; it finds the package by the `python` of PATH.
types: $(VENV)/.installed-dev ## pyright, and whether every public name has a type
	$(VENV_PYTHON) -m pyright --pythonpath $(VENV_PYTHON)
	PATH=$(abspath $(VENV))/bin:$$PATH $(VENV_PYTHON) -m pyright --verifytypes ramda_jax --ignoreexternal

check: ## everything CI runs
	bash .ci/run

docs: $(VENV)/.installed-docs out/notebooks/.executed ## the site, into out/docs, and its tests
	rm -rf docs/api/generated  # pages of names that no longer exist are errors
	$(VENV_PYTHON) -m sphinx -b html -n -W --keep-going -q -c docs -d out/doctrees . out/docs
	$(VENV_PYTHON) -m pytest docs/tests

build: $(VENV)/.installed-dev ## wheel and sdist into dist/
	rm -rf dist
	$(VENV_PYTHON) -m build

dist-check: build ## check them, and run README's quickstart with the wheel in a fresh environment
	$(VENV_PYTHON) -m twine check --strict dist/*
	$(VENV_PYTHON) tests/check_dist.py dist

release-check: dist-check ## a dry run of a release: version, changelog, clean tree, sdist, README; uploads nothing
	$(VENV_PYTHON) -m check_sdist
	$(VENV_PYTHON) tests/check_release.py dist

clean: ## remove environments, caches and build outputs
	rm -rf $(VENV) .venv .venv-newest .venv-onnx .venv-cuda .venv-tpu dist out docs/api/generated .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c '' || { \
	  echo "'$(PYTHON)' does not start; name a Python 3.11 or newer: make PYTHON=python3.13 ..." >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ramda_jax needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1);" \
	    "name a newer one: make PYTHON=python3.13 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' comes without venv or ensurepip; install them" \
	    "(Debian and Ubuntu: the package python3-venv) or name another Python:" \
	    "make PYTHON=python3.13 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One stamp per extra: nothing is installed again until pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml $(VENV)/.created
	@echo "Installing ramda_jax[$*] into $(VENV); the first time takes a few minutes."
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
