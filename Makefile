# make fold0   the quick session: every claim on fold 0, report in reports/latest/report.html
# make test    the harness's own tests
# make nightly all five folds, strict
# make lint    ruff and mypy
# make bench   speed, side by side with chgnet, on little input; docs/performance.md has the record
# make mutants small faults planted in the core, one at a time: do its tests notice? (docs/mutants.md)
# make planted defects that real projects make, one at a time: what turns red? (docs/planted.md)
# make clean   remove what the above made here (not the cache of predictions)
#
# Each creates .venv with pinned versions if it is not there. PYTHON=python3.12 chooses another
# Python (3.11 to 3.13), ARGS="--sample 1000" passes options to pytest.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: fold0 test nightly lint bench mutants planted clean

fold0: $(READY)
	$(BIN)/python -m pytest checks/ -m fold0 $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest tests/ -rs $(ARGS)

nightly: $(READY)
	$(BIN)/python -m pytest checks/ -m nightly --size nightly --strict $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m pytest benchmarks/ --benchmark-enable $(ARGS)

mutants: $(READY)
	$(BIN)/python -m tests.mutants $(ARGS)

planted: $(READY)
	env -u HARNESS_DATA $(BIN)/python -m tests.planted --document $(ARGS)

# matbench 0.6 pins packages that cannot be built any more; without its pins it works.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(None if ok else "Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11 ...")'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps matbench==0.6
	touch $(READY)

clean:
	rm -rf $(VENV) reports/20* reports/latest .pytest_cache .ruff_cache .mypy_cache .benchmarks .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
