# make run    set-up (once) and the main job on the embedded default: no key, no GPU, no network
# make test   set-up (once) and everything that CI checks
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: run setup test lint fast clean

run: $(READY)
	$(BIN)/crew run posttrain --target gpqa-mini $(ARGS)

setup: $(READY)

# torch goes in first and alone: a range, or another package asking for it, may pull gigabytes of CUDA libraries
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("crew needs Python 3.10 to 3.13, this is " + sys.version.split()[0]) if not (3, 10) <= sys.version_info[:2] <= (3, 13) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation setuptools wheel
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fast: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow'

test: lint
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n 2 --dist loadfile -m 'not slow'
	$(BIN)/coverage run -m pytest -n 2 --dist loadgroup -m slow
	$(BIN)/coverage combine -q
	rm -f .coverage.*  # of processes that a test killed while they wrote
	$(BIN)/coverage report --fail-under=85

clean:
	rm -rf $(VENV) runs build dist *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache
