# make demo: the whole main job on a simulated cohort. make test: the tests. Both make .venv where it is not there.
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO ?= demo
# One thread a process: the tests and the cohort's workers are parallel by processes.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo test lint types docs pages links dist lock sbom clean

demo: $(VENV)/.installed
	$(BIN)/pdsynth demo --out $(DEMO) --overwrite
	@echo "The report is at $(abspath $(DEMO))/report.html"

test: $(VENV)/.installed-dev
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist=worksteal --durations=10

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(ONE_THREAD) $(BIN)/mkdocs build --strict --site-dir site
	@echo "The pages are at $(abspath site)/index.html"

pages: $(VENV)/.installed-docs
	$(ONE_THREAD) $(BIN)/python docs/generate/committed.py

links: $(VENV)/.installed-docs
	DOCS_RUNS=0 $(ONE_THREAD) $(BIN)/mkdocs build --strict --site-dir build/links

dist: $(VENV)/.installed-release
	bash .ci/dist $(CLEAN)

# The newest versions that pyproject.toml permits. torch has a build per device, and is installed before the others.
lock: $(VENV)/.installed-release
	@mkdir -p build && echo "torch; python_version < '0'" >build/no-torch.txt
	$(BIN)/uv pip compile pyproject.toml --upgrade --universal --generate-hashes --overrides build/no-torch.txt \
	    --no-header --no-annotate --quiet --output-file build/requirements.lock
	@{ echo '# Made by `make lock`: all that pdsynth needs except torch, which has a build per device; install it first.'; \
	    cat build/requirements.lock; } >requirements.lock

sbom: $(VENV)/.installed
	$(BIN)/python -m venv build/sbom
	build/sbom/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom
	build/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	    --output-file build/pdsynth.cdx.json $(BIN)/python
	@echo "The bill of materials is build/pdsynth.cdx.json"

clean:
	rm -rf $(VENV) $(DEMO) site build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@for python in python3.11 python3 python3.12 python3.13; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Creating $(VENV) with $$python"; $$python -m venv $(VENV) && exit 0; rm -rf $(VENV); exit 1; \
	    fi; \
	done; echo "No Python 3.11 or newer was found. Install one, then run make again." >&2; exit 1

# A stamp is older than these files only where what is installed may differ from what they ask for.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing pdsynth into $(VENV) (a few minutes the first time)"
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing pdsynth[$*] into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[$*]'
	@touch $@ $(VENV)/.installed
