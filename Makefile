# Every target sets up what it needs. RECIPE is a shipped recipe's name or a file; ARGS goes on to the command.
#   make student RECIPE=cifar10 ARGS="--set student.epochs=5"

PYTHON ?= python3
VENV   ?= .venv
RECIPE ?= digits
ARGS   ?=
JOBS   ?= 1
SITE   ?= site

READY  := $(VENV)/.ready
EXTRAS := $(VENV)/.integrations
DECANT := $(VENV)/bin/decant
RUN     = --recipe $(RECIPE) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-integrations hosts docs browser check format bench bench-compare bench-encodings bench-losses bench-objectives study teacher cache-logits student evaluate report clean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | awk -F'|' '{printf "%-24s %s\n", $$1, $$2}'
	@echo
	@echo '  RECIPE=digits (default), cifar10, cifar100, imagefolder, imagenet, general, soft-transfer, transfer-set,'
	@echo '         lenet-cifar10, regression, text, language-model, or a .toml file'
	@echo '  ARGS="--set student.epochs=5" and the like go on to the command'

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@# an environment of before the distribution was called decant-kd has this project as decant
	$(VENV)/bin/pip uninstall -qq --disable-pip-version-check --yes decant
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## the main job on the embedded digits: teacher, cache, students, table
	@$(MAKE) --no-print-directory report RECIPE=digits JOBS=2 TOGETHER=1

test: $(READY) ## the whole suite
	$(VENV)/bin/python -m pytest

$(EXTRAS): $(READY)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[integrations]'
	@touch $@

test-integrations: $(EXTRAS) ## the examples, the notebook and every test with Lightning, accelerate, timm, …
	$(VENV)/bin/python -m pytest -m 'integrations and not slow' $(ARGS)

hosts: $(READY) ## both phases on two hosts, as network namespaces, of which one is cut off; needs root (3 minutes)
	$(VENV)/bin/python -m tests.systems.hosts

docs: $(READY) ## the documentation as a site: site/index.html
	@# not --quiet: what it does not say, --strict does not count
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --site-dir $(abspath $(SITE))

browser: $(READY) ## a Chromium for the tests of the report's page, where there is none
	@for name in chromium chromium-browser google-chrome chrome; do \
	  command -v $$name && exit; \
	done; \
	{ apt-get -qq update && apt-get -qq install -y chromium; } || $(VENV)/bin/playwright install --with-deps chromium

check: $(READY) ## format, lint, types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(READY) ## put the format right
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(READY) ## measure the speed of everything, against what it could be (40 minutes, 12 GB in TMPDIR)
	$(VENV)/bin/python -m benchmarks $(ARGS)

bench-objectives: $(READY) ## every objective on the digits, 5 seeds
	$(VENV)/bin/python -m benchmarks.objectives $(ARGS)

bench-encodings: $(READY) ## what each encoding of a cache costs in bytes and in error
	$(VENV)/bin/python -m benchmarks.encodings $(ARGS)

bench-losses: $(READY) ## what losses of sparse rows cost beside a cross-entropy, and to encode a row
	$(VENV)/bin/python -m benchmarks.losses $(ARGS)

bench-compare: $(READY) ## OLD=FILE.json NEW=FILE.json: what two runs of the measurements differ in
	@$(VENV)/bin/python -m benchmarks.compare $(OLD) $(NEW)

study: $(READY) ## one student by labels, by fixed logits, by V cached views and by a live teacher
	$(VENV)/bin/python -m benchmarks.study $(RUN)

teacher: $(READY) ## train the teacher
	$(DECANT) teacher $(RUN)

cache-logits: teacher ## run the teacher once and store its logits
	$(DECANT) cache-logits $(RUN)

student: cache-logits ## train students from the cache, and on labels alone; JOBS=2 trains two side by side, TOGETHER=1 seeds in one loop
	$(DECANT) student $(RUN) --jobs $(JOBS) $(if $(TOGETHER),--together)

evaluate: $(READY) ## measure every finished network again
	$(DECANT) evaluate $(RUN)

report: student ## the table, the curves and the page, making what is missing
	$(DECANT) report $(RUN)

clean: ## remove the environment and tools' leftovers; runs, caches and data stay
	rm -rf $(VENV) build site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
