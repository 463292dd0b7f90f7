# `make demo` runs the default experiment, `make test` the tests, `make check` formatting, lint and types.
# Everything is installed into .venv. For another Python: make PYTHON=python3.12 demo, after make clean if
# there is an environment. For another build of PyTorch: make TORCH=cpu demo, or cuda, or the URL of a
# package index (requirements/install_torch.py).
PYTHON ?= python3
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK := --constraint requirements/lock.txt

# An environment keeps its build of PyTorch until TORCH names another.
MADE_WITH := $(or $(shell cat $(VENV)/torch 2>/dev/null),auto)
override TORCH := $(or $(TORCH),$(MADE_WITH))
export TORCH
ifneq ($(TORCH),$(MADE_WITH))
.PHONY: $(VENV)/run
REPLACE := --force-reinstall
endif

.PHONY: help demo audit plan slurm test test-kernels test-rounding test-slow test-slurm check format docs site lock clean
help:
	@echo "make demo    create the environment, run the default experiment, print where the report is"
	@echo "make audit   audit a model of your own: MODEL=models/net.py WEIGHTS=net.pth DATASET=mnist (docs/own-models.md)"
	@echo "make plan    print what would run, and why; ARGS='--configfile ...': arguments of snakemake"
	@echo "make slurm   add to the environment what a SLURM cluster needs (profiles/README.md)"
	@echo "make test    create the environment with the test tools, run the tests; ARGS=tests/unit: some of them"
	@echo "make test-kernels   run the numerical tests as on other processors"
	@echo "make test-slow   run the tests that take long: crashes at random moments, a full disk, many repeats"
	@echo "make test-slurm  (as root) start a SLURM cluster on this machine, test on it, stop it"
	@echo "make check   check formatting, lint and types of Python and Snakemake"
	@echo "make format  format the Python and Snakemake code"
	@echo "make docs    regenerate what is generated: the configuration's schema and reference, pages of results and performance, ARCHITECTURE.md, the picture of the rules"
	@echo "make site    build the documentation site: site/index.html"
	@echo "make lock    resolve requirements/*.txt into requirements/lock.txt"
	@echo "make clean   remove the environment (results/ and resources/ stay)"

# torch first and alone: everything else must accept the pinned version as it is.
$(VENV)/run: requirements/run.txt requirements/no-deps.txt requirements/lock.txt
	@$(PYTHON) -c 'import os, sys; sys.exit(not set(os.getcwd()).isdisjoint(":\"$$`\\\t\n"))' || { echo "Python's virtual environments need a folder without : \" \$$ \` \\, tab or new line in its path: move the project, then make again" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 demo" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@echo "Installing the requirements into $(VENV) ..."
	@$(BIN)/python requirements/install_torch.py --quiet --disable-pip-version-check $(REPLACE)
	@$(PIP) $(LOCK) --requirement requirements/run.txt
	@$(PIP) --no-deps --requirement requirements/no-deps.txt
	@printf '%s\n' "$$TORCH" > $(VENV)/torch
	@touch $@

$(VENV)/dev: $(VENV)/run requirements/dev.txt
	@$(PIP) $(LOCK) --requirement requirements/run.txt --requirement requirements/dev.txt
	@touch $@

$(VENV)/docs: $(VENV)/run requirements/docs.txt
	@$(PIP) $(LOCK) --requirement requirements/run.txt --requirement requirements/docs.txt
	@touch $@

$(VENV)/slurm: $(VENV)/run requirements/slurm.txt
	@$(PIP) $(LOCK) --requirement requirements/run.txt --requirement requirements/slurm.txt
	@touch $@

demo: $(VENV)/run
	@$(BIN)/snakemake --cores $(CORES)
	@$(BIN)/python -c 'from pathlib import Path; print("Done. Open the report:", Path("results/digits/report.html").absolute().as_uri())'

# The variables that tools/audit_model.py takes. In some environments NAME is the machine's.
AUDITED = MODEL DATASET WEIGHTS BUILD ARGUMENTS WEIGHTS_KEY OUTPUT SOLVE MIRROR NORM EPSILONS TOLERANCES \
  ATTACKS IMAGES CORES PLAN YES ARGS $(if $(filter command,$(origin NAME)),NAME)
quoted = '$(subst ','\'',$(1))'
audit: $(VENV)/run
	@PYTHONPATH=workflow/scripts $(BIN)/python tools/audit_model.py $(foreach name,$(AUDITED),$(if $($(name)),$(call quoted,$(name)=$($(name)))))

plan: $(VENV)/run
	@PYTHONPATH=workflow/scripts $(BIN)/python -m node_robustness.scheduling.plan $(ARGS)

slurm: $(VENV)/slurm

# Bytecode is kept whatever the machine's setting: each of many processes would compile the same modules.
TESTED = PYTHONDONTWRITEBYTECODE= PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python -m pytest
test: $(VENV)/dev
	@$(TESTED) -m "not slow" --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

# The kernels of older x86 processors (PyTorch's own, oneDNN's and MKL's), and rounding unlike that of any
# processor (tests/rounding.py). Other processors ignore these variables.
NUMERICAL = $(TESTED) -m "numerical and not slow" --numprocesses auto --dist worksteal $(or $(ARGS),tests/unit)
test-kernels: $(VENV)/dev
	@echo "Kernels for AVX2:"
	@ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(NUMERICAL)
	@echo "Kernels for SSE 4:"
	@ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 $(NUMERICAL)
	@echo "Other rounding:"
	@$(NUMERICAL) --other-rounding

# The last of them alone: it finds most, whatever the processor.
test-rounding: $(VENV)/dev
	@$(NUMERICAL) --other-rounding

# One at a time: they kill processes and fill disks.
test-slow: $(VENV)/dev
	@$(TESTED) -m slow

test-slurm: $(VENV)/dev $(VENV)/slurm
	@tests/slurm/cluster.sh install
	@PATH="$$PWD/$(BIN):$$PATH" timeout --kill-after=60 1800 tests/slurm/cluster.sh run python -m pytest tests/slurm

check: $(VENV)/dev
	@PATH="$$PWD/$(BIN):$$PATH" sh -ec '\
	  ruff format --check .; \
	  ruff check .; \
	  snakefmt --check Snakefile workflow; \
	  mypy; \
	  PYTHONPATH=workflow/scripts python -m node_robustness.config.docs --check; \
	  snakemake --lint'

format: $(VENV)/dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/snakefmt Snakefile workflow

docs: $(VENV)/run
	@PYTHONPATH=workflow/scripts $(BIN)/python -m node_robustness.config.docs
	@PYTHONPATH=workflow/scripts $(BIN)/python -m node_robustness.report.markdown docs/results/*.md
	@$(BIN)/python tools/architecture.py
	@PYTHONPATH=workflow/scripts $(BIN)/python tools/readme_answers.py
	@$(BIN)/python tools/performance_page.py
	@$(BIN)/python tools/rules_picture.py

site: $(VENV)/docs
	@$(BIN)/python -m sphinx -W --keep-going --quiet -c docs . site
	@echo "Done. Open the site: site/index.html"

# Without the platform's torch build (+cpu, +cu128) and its CUDA packages: the same lock serves machines
# with and without a GPU.
lock: $(VENV)/dev $(VENV)/docs $(VENV)/slurm
	@$(BIN)/python -m pip freeze --all --exclude pip --exclude torch --exclude torchattacks | grep -v '^nvidia-\|^triton=\|^cuda-' > requirements/lock.txt

clean:
	rm -rf $(VENV)
