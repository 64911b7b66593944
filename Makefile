# `make demo` and `make test` set up all they need from a bare Python 3.10 or newer, in ./.venv.
#
#   PYTHON    the Python to set up from (default: the first on the path that is new enough)
#   PIP_ARGS  further arguments for pip, such as an index with CPU-only builds of torch
#   UV_ARGS   the same for uv, which installs the oldest versions for `make test-oldest` (default: PIP_ARGS)

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python3.10 python
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c '$(NEW_ENOUGH)' 2>/dev/null && { echo $$p; break; }; done)
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
CLUSTER := $(VENV)/cluster
DOCS := $(VENV)/docs
BUILD := $(VENV)/build
TRY := .venv-dist

OLDEST_FIRST := python3.10 python3.11 python3.12 python3.13 python3.14 python3 python
OLDEST_PYTHON ?= $(shell for p in $(OLDEST_FIRST); do $$p -c '$(NEW_ENOUGH)' 2>/dev/null && { echo $$p; break; }; done)
UV_ARGS ?= $(PIP_ARGS)
OLDEST := .venv-oldest

.PHONY: help demo test test-all test-numerical test-processors test-pretended-cuda test-oldest docs dist lint clean

help:
	@echo "make demo   score, select and compare on the embedded data set, into demo/"
	@echo "make test   run the tests, but for those marked slow"
	@echo "make test-all   run all tests, those of examples/ with submitit and ray too"
	@echo "make test-processors   run the numerical tests as on older processors, with two threads"
	@echo "make test-pretended-cuda   run the tests marked gpu without a GPU, on a pretended CUDA device"
	@echo "make test-oldest   run the tests with the oldest versions of all packages that pyproject.toml allows"
	@echo "make docs   build the documentation, examples included, into docs/_build/html"
	@echo "make dist   build a wheel and an sdist into dist/, and try both in an empty environment"
	@echo "make lint   ruff, mypy and the import rules"
	@echo "make clean  remove environments, what was built, demo/ and caches"

demo: $(READY)
	$(BIN)/fmiqa demo --out demo/

# One thread a test process: small tensors gain nothing from more, and lose by sharing cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow" --durations=15

test-all: $(CLUSTER)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --durations=15

# The tests of what depends on how a processor computes, on THREADS threads; without some of the longest.
NUMERICAL := $(addprefix tests/,correlation evaluation features measures scoring selection runtime/test_compiled.py \
	runtime/test_precision.py test_metrics.py test_pooling.py test_presets.py visualize/dissection) \
	$(addprefix tests/visualize/test_,activation_maximization.py difference.py exemplars.py patches.py replay.py)
LEFT_OUT := $(addprefix --ignore tests/,evaluation/peers/test_deep.py evaluation/peers/test_dists.py features/test_checkpoints.py \
	features/test_networks.py $(addprefix scoring/test_,loading.py samples.py shards.py store.py)) \
	$(addprefix --deselect tests/,correlation/test_logistic.py::test_not_below_the_best_of_twelve_scipy_starts \
	scoring/test_tiling.py::test_a_score_matrix_that_does_not_fit_is_made_of_tiles \
	scoring/test_tiling.py::test_reach_is_where_gradients_come_from \
	test_presets.py::test_presets_are_evaluated_beside_each_other \
	selection/test_lasso.py::test_a_mixed_metric_equals_the_joined_matrix \
	selection/test_forward.py::test_equals_a_plain_loop_over_scipy_fits_on_real_scores \
	correlation/test_bootstrap.py::test_images_of_one_group_do_not_count_as_independent)
THREADS ?= 1
CAPABILITY := $(BIN)/python -c 'import torch; print(torch.backends.cpu.get_cpu_capability())'

test-numerical: $(READY)
	@echo "torch uses $$($(CAPABILITY)), oneDNN at most $${ONEDNN_MAX_CPU_ISA:-what it finds}, threads: $(THREADS)"
	OMP_NUM_THREADS=$(THREADS) OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n auto -m "not slow" $(NUMERICAL) $(LEFT_OUT)

# The same as on older processors than this one, with two threads; `make test` runs on this one with one thread. Torch
# would crash if told to use instructions that are not there, so AVX2 is asked for only where torch finds AVX-512.
# SSE= leaves out the run without AVX, and NUMERICAL= names fewer tests.
SSE ?= yes
test-processors: $(READY)
	@set -e; case "$(SSE)$$($(CAPABILITY))" in yesAVX*) \
		ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(MAKE) test-numerical THREADS=2;; \
	esac; \
	if [ "$$($(CAPABILITY))" = AVX512 ]; then export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2; fi; \
	$(MAKE) test-numerical THREADS=2

# Tests marked gpu on a pretended CUDA device; where there is a real one, on that.
test-pretended-cuda: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --pretend-cuda -m "gpu and not slow" --durations=15 tests

# The same suite in an environment of its own, since it replaces every package.
test-oldest: $(OLDEST)/ready
	$(OLDEST)/bin/python --version
	$(OLDEST)/bin/python -m pip list --disable-pip-version-check
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n auto -m "not slow" --durations=15

docs: $(DOCS)
	rm -rf docs/_build docs/examples docs/api/generated docs/api/examples
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -j auto -b html docs docs/_build/html
	@echo "docs/_build/html/index.html: $$(find docs/_build/html -name '*.html' | wc -l) pages"

# The environment has the package and its dependencies alone. -I keeps out this folder and PYTHONPATH.
dist: $(BUILD)
	rm -rf build dist $(TRY)
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	"$(PYTHON)" -m venv $(TRY)
	@set -e; \
	install="$(TRY)/bin/python -m pip install --disable-pip-version-check --quiet --no-compile $(PIP_ARGS)"; \
	version=$$($(BIN)/python -c 'from fmiqa import __version__; print(__version__)'); \
	$$install dist/*.whl; $(TRY)/bin/python -I tests/smoke.py $$version; \
	$(TRY)/bin/python -m pip uninstall --yes --quiet fmiqa; \
	$$install --no-deps dist/*.tar.gz; $(TRY)/bin/python -I tests/smoke.py $$version
	rm -rf $(TRY) build

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

$(READY): pyproject.toml
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || \
		{ echo "fmiqa needs Python 3.10 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -e '.[plot,test,lint]'
	@touch $@

$(DOCS): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -e '.[docs]'
	@touch $@

$(BUILD): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -e '.[release]'
	@touch $@

# Where they cannot be installed, the tests that need them are skipped, which says so.
$(CLUSTER): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -e '.[submitit,ray]' && touch $@ || \
		echo "submitit and ray cannot be installed here" >&2

$(OLDEST)/ready: pyproject.toml
	@"$(OLDEST_PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || \
		{ echo "fmiqa needs Python 3.10 or newer; name one: make OLDEST_PYTHON=/path/to/python3.10" >&2; exit 1; }
	"$(OLDEST_PYTHON)" -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) uv
	$(OLDEST)/bin/uv pip install --python $(OLDEST)/bin/python --quiet --resolution lowest-direct $(UV_ARGS) \
		-e '.[plot,test]'
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(TRY) demo docs/_build docs/examples docs/api/generated docs/api/examples .pytest_cache .mypy_cache .ruff_cache .hypothesis fmiqa.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
