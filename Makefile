# The developer's loop. Everything runs from a virtual environment that `make install` fills once.
#
#   PYTHON=python3.12   which interpreter makes the environment (3.10 or newer)
#   VENV=.venv          where it lies
#   JOBS=2              test processes; each computes on one thread
#   ARGS="-k solvers"   passed on to pytest

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
ARGS ?=
ARCHS ?= 90-real

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CREATED := $(VENV)/.created
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
CACHES := .mypy_cache .pytest_cache .ruff_cache

.DEFAULT_GOAL := help
.PHONY: help install demo docs ext test test-all test-ray mutants fuzz bench report lint types format wheel gpu-wheel clean distclean

help:
	@echo "make demo      install what sampling needs, sample 100 digits with CFG and with REG"
	@echo "make install   the developer's environment in $(VENV)"
	@echo "make test      fast tests (no GPU needed)"
	@echo "make test-all  every test; those that need a GPU are skipped where there is none"
	@echo "make test-ray  install Ray, run the tests of generate --engine ray"
	@echo "make fuzz      the fuzz tests with thousands of new cases"
	@echo "make mutants   try 200 small wrong edits of the core and name those that no test notices"
	@echo "make docs      build the documentation site into site/, strictly"
	@echo "make ext       compile the C++ and, where there is nvcc, the CUDA operations; say what is missing"
	@echo "make bench     time everything against plain CFG (minutes); make report writes docs/performance.md"
	@echo "make lint      ruff: rules and format"
	@echo "make types     mypy on reg_engine"
	@echo "make format    let ruff rewrite what lint would refuse"
	@echo "make wheel     build a wheel into dist/"
	@echo "make gpu-wheel  the same with the CUDA operations of one architecture (ARCHS=90-real)"
	@echo "make clean     remove builds and caches; make distclean removes $(VENV) too"

install: $(DEV)

$(CREATED):
	@command -v $(PYTHON) >/dev/null || \
	    { echo "No '$(PYTHON)' here. Install Python 3.10 or newer, or name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "'$(PYTHON)' is too old: Python 3.10 or newer is needed. Name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch comes first and alone, so that nothing else can pull in another build of it.
$(RUNTIME): pyproject.toml constraints.txt setup.py CMakeLists.txt $(wildcard csrc/* csrc/*/*) $(CREATED)
	@echo "Installing into $(VENV): this takes a few minutes the first time, nothing later"
	$(PIP) install -q -c constraints.txt torch setuptools
	$(PIP) install -q -c constraints.txt --no-build-isolation -e .
	@touch $@

$(DEV): $(RUNTIME)
	$(PIP) install -q -c constraints.txt --no-build-isolation -e ".[dev]"
	@touch $@

demo: $(RUNTIME)
	@mkdir -p out
	$(BIN)/reg-engine sample --model mnist --labels 0-9 --per-label 10 --scale 4 --steps 10 --compare \
	    --out out/demo.png

$(DOCS): $(RUNTIME)
	$(PIP) install -q -c constraints.txt --no-build-isolation -e ".[docs]"
	@touch $@

# The banner that the variable leaves out is the theme's, about another generator.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir site
	@echo "Open site/index.html, or: $(BIN)/python -m http.server -b 127.0.0.1 -d site 8000"

# One thread a process: test processes must not fight over the cores. Bytecode is kept, also where
# the environment says not to: pytest's own of the tests takes ten seconds a process to make.
test: $(DEV)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile -m "not slow and not gpu" $(ARGS) tests bench

test-all: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS) tests bench

# Ray is 200 MB that nothing else needs: it is installed here, and no part of the other targets.
test-ray: $(DEV)
	$(PIP) install -q -c constraints.txt --no-build-isolation -e ".[ray]"
	OMP_NUM_THREADS=1 $(BIN)/pytest $(ARGS) tests/test_generation_cluster.py tests/test_generation_ray_session.py

# Which small wrong edits of the core no test would notice: about ten seconds each, and no part of CI.
#   ARGS="--count 500 --seed 3"   another sample; see tests/mutants/__main__.py
mutants: $(DEV)
	$(BIN)/python tests/mutants $(ARGS)

# The fuzz tests with thousands of new cases; `make test` tries a few fixed ones.
fuzz: $(DEV)
	REG_ENGINE_FUZZ=long $(BIN)/pytest tests/test_fuzz*.py $(ARGS)

bench: $(DEV)
	$(BIN)/pytest bench/ --benchmark $(ARGS)

report: $(DEV)
	$(BIN)/python -m bench.report

# In place, beside the Python files. CUDA sources are compiled and linked; that needs no GPU.
ext: $(DEV)
	REG_ENGINE_BUILD=1 REG_ENGINE_CUDA=$(if $(shell command -v nvcc),1,0) \
	    $(BIN)/python setup.py build_ext --inplace
	REG_ENGINE_EXT=1 $(BIN)/python -c "from reg_engine.ops import extension; print(extension.load())"

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A left-over build folder would put deleted modules into the next wheel: clean first.
wheel: $(DEV) clean
	$(PIP) wheel -q --no-deps --no-build-isolation -w dist .

# To carry to a machine with one kind of GPU (90: H100, H200) where there is no time to compile.
gpu-wheel: $(DEV) clean
	REG_ENGINE_BUILD=1 REG_ENGINE_CUDA=1 REG_ENGINE_CUDA_ARCHS=$(ARCHS) \
	    $(PIP) wheel -q --no-deps --no-build-isolation -w dist .

clean:
	rm -rf build dist *.egg-info $(CACHES) reg_engine/_C_*.so $(RUNTIME) $(DEV) $(DOCS) site
	find bench kernels reg_engine tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
