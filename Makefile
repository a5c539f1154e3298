# The commands of this project. `make` alone lists the targets.
#
# It requires git, make, bash and a Python from 3.10 to 3.12. Targets install uv, Airflow 3 and Airflow 2 into .venv/
# when they need them. The tests on Airflow 2 start their own PostgreSQL, and those in tests/browser a Chromium; on
# Debian and Ubuntu, both are installed (as root) if they are missing.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# If this variable is set, as in many containers, each component and each task of an Airflow compiles hundreds of modules
# again, which doubles the cost of a start.
unexport PYTHONDONTWRITEBYTECODE

# The two Airflow releases for development. constraints/matrix.json lists all that the project is tested with.
AIRFLOW_3 = $(shell sed -n 's/^apache-airflow==//p' $(CONSTRAINTS_3))
AIRFLOW_2 = $(shell sed -n 's/^apache-airflow==//p' $(CONSTRAINTS_2))

# Airflow 2.11 does not run on Python 3.13. A command can exist without working (pyenv's shims), so each is tried.
find_python = $(firstword $(foreach python,python3.12 python3.11 python3.10 $(1) python3,$(shell \
	$(python) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < $(2))' 2>/dev/null && echo $(python))))
# The interpreters for the virtualenvs, e.g.: make test PYTHON_3=/opt/python3.13/bin/python3
PYTHON_3 = $(call find_python,python3.13,(3, 14))
PYTHON_2 = $(call find_python,,(3, 13))

UV := .venv/tools/bin/uv
VENV_3 := .venv/airflow-3
VENV_2 := .venv/airflow-2
VENV_MYSQL := .venv/mysql-airflow-3
VENV_CLUSTER := .venv/cluster
VENV_RELEASE := .venv/release
CONSTRAINTS_3 := constraints/airflow-3.3.txt
CONSTRAINTS_2 := constraints/airflow-2.11.txt
CONSTRAINTS_CLUSTER := constraints/airflow-3.3-celery.txt
CONSTRAINTS_RELEASE := constraints/release.txt

# Drivers for an Airflow database in PostgreSQL, which the local Airflow 2.11 needs; see scripts/local_airflow.py.
DRIVERS_3 := psycopg2-binary asyncpg
DRIVERS_2 := psycopg2-binary
# The packages of docker-compose.yml's images. apache-airflow-providers-celery 3.26.0 imports a name that celery 5.7.0
# removed. check-jsonschema contains the Compose specification's schema.
CLUSTER := 'apache-airflow[celery]' 'celery<5.7' apache-airflow-providers-fab check-jsonschema trustme
# The tools that build and check a release, and check the workflows.
RELEASE := build check-jsonschema check-wheel-contents cyclonedx-bom 'readme-renderer[md]' setuptools twine zizmor

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' airflow_provider_coveo/__init__.py)

# The extras to install with Airflow. The documentation is built on Airflow 3.
EXTRAS_3 := dev,docs

# The files that require a new installation if they change. The sources don't, because they are installed editable.
INSTALLED_FROM := setup.cfg setup.py pyproject.toml airflow_provider_coveo/__init__.py

ISSUE_FORMS = $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

# The Airflow lines of test-bracket, and the file for its table. To update the one in the docs:
# make test-bracket BRACKET_TABLE=docs/bracket-table.md
LINES = 2.11 3.0 3.1 3.2 3.3
BRACKET_TABLE = build/bracket-table.md
# The virtualenv of a line: $(call bracket_venv,3.1)
bracket_venv = $(or $(bracket_venv_$(1)),.venv/bracket-$(1))
bracket_venv_2.11 := $(VENV_2)
bracket_venv_3.3 := $(VENV_3)

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

# ---- targets ------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV_3)/.installed ## Two runs on a real Airflow against a simulated Coveo; KEEP=1 keeps both running
	@$(VENV_3)/bin/python scripts/demo.py $(if $(KEEP),--keep)

# In parallel, the longest first. Everything is installed before, so that two parts don't install it at the same time.
TEST_PARTS = "Airflow $(AIRFLOW_3), running" test-running-3 "Airflow $(AIRFLOW_2), running" test-running-2 \
	"Airflow $(AIRFLOW_3), the rest" test-rest-3 "Airflow $(AIRFLOW_2), the rest" test-rest-2 \
	"Airflow $(AIRFLOW_3), browser" test-browser-3 "Airflow $(AIRFLOW_2), browser" test-browser-2 \
	"Airflow $(AIRFLOW_3), stepped" test-stepped
# The number of parts to run at a time; by default two more than there are cores.
AT_A_TIME =
RUN_ALL = $(PYTHON_3) scripts/run_all_checks $(if $(AT_A_TIME),--jobs $(AT_A_TIME))

.PHONY: test
test: $(VENV_3)/.installed $(VENV_2)/.installed ## Everything: lint, and all tests on Airflow 3 and on Airflow 2
	@$(RUN_ALL) $(TEST_PARTS) "lint" lint

# The rest includes every test folder that is not named here.
RUNNING := tests/airflow
BROWSER := tests/browser
REST := tests $(patsubst %,--ignore=%,$(RUNNING) $(BROWSER) tests/stepped)
# These tests run on Airflow 3 only. The code under test is independent of Airflow, or uses only the hook's connection, and
# its dependencies have the same versions on both lines (see tests/unit/test_lines.py). test-unit and test-matrix run them
# on each line.
ON_ONE_LINE := tests/simulator \
	$(addprefix tests/docs/test_,docstrings.py pictures.py site.py with_the_simulator.py) \
	$(addprefix tests/unit/,coveo test_fresh.py test_house_rules.py test_lines.py test_matrix.py test_release.py \
	test_run_all_checks.py) \
	$(addprefix tests/unit/changes/test_,as_a_rebuild.py bad_timing.py killed.py memory.py) \
	$(addprefix tests/unit/hooks/test_,call_rates.py documented_success.py wire.py) \
	$(addprefix tests/unit/push/test_,accounting.py as_if_one_by_one.py compression.py faults.py fuzzed_input.py \
	json_files.py listing.py memory.py partitions.py strict_receiver.py tables_oracle.py values.py)
REST_2 := $(REST) $(ON_ONE_LINE:%=--ignore=%)

.PHONY: test-airflow-3 test-airflow-2
test-airflow-3: test-rest-3 test-running-3 test-browser-3 test-stepped ## All tests on Airflow 3
test-airflow-2: test-rest-2 test-running-2 test-browser-2 ## All tests on Airflow 2

.PHONY: test-running-3 test-running-2 test-browser-3 test-browser-2 test-rest-3 test-rest-2
test-running-3: $(VENV_3)/.installed
	@$(call pytest,$(VENV_3),$(RUNNING))
test-running-2: $(VENV_2)/.installed
	@$(call pytest,$(VENV_2),$(RUNNING))
test-browser-3: $(VENV_3)/.installed
	@$(call pytest,$(VENV_3),$(BROWSER))
test-browser-2: $(VENV_2)/.installed
	@$(call pytest,$(VENV_2),$(BROWSER))
test-rest-3: $(VENV_3)/.installed
	@$(call pytest,$(VENV_3),$(REST))
test-rest-2: $(VENV_2)/.installed
	@$(call pytest,$(VENV_2),$(REST_2))

.PHONY: test-unit
test-unit: $(VENV_3)/.installed $(VENV_2)/.installed ## The tests that need no running Airflow, on both
	@$(call pytest,$(VENV_3),tests/unit tests/simulator)
	@$(call pytest,$(VENV_2),tests/unit tests/simulator)

# Rows of other lines stay unchanged.
.PHONY: test-bracket
test-bracket: $(foreach line,$(LINES),$(call bracket_venv,$(line))/.installed) ## Test the bracket's situations and write the table of results; LINES="3.1 3.2" selects lines
	@mkdir -p $(dir $(BRACKET_TABLE)) build; failed=; \
	export COVEO_BRACKET=full COVEO_BRACKET_TABLE=build/bracket-table.md; \
	$(foreach line,$(LINES),echo "==== Airflow $(line)"; \
	( $(call pytest,$(call bracket_venv,$(line)),tests/airflow/bracket) ) || failed+=" $(line)";) \
	test $(BRACKET_TABLE) -ef build/bracket-table.md || cp build/bracket-table.md $(BRACKET_TABLE); \
	cat $(BRACKET_TABLE); test -z "$$failed" || { echo "Not as expected on Airflow$$failed" >&2; exit 1; }

# On 3.0, which has no place for the page, only its HTML is tested.
.PHONY: test-page
test-page: $(foreach line,$(LINES),$(call bracket_venv,$(line))/.installed) ## Test the page Push sources in a browser; LINES="3.1 3.2" selects lines
	@failed=; $(foreach line,$(LINES),echo "==== Airflow $(line)"; \
	( $(call pytest,$(call bracket_venv,$(line)),$(wildcard tests/browser/test_push_sources*.py)) ) || failed+=" $(line)";) \
	test -z "$$failed" || { echo "Failed on Airflow$$failed" >&2; exit 1; }

.PHONY: test-stepped
test-stepped: $(VENV_3)/.installed ## Test the bracket on an Airflow that is stepped in process, with a fixed set of sequences
	@$(call pytest,$(VENV_3),tests/stepped)

# Each seed is a sequence of events, which takes half a second to three seconds of CPU time.
SEEDS = 1-1000
JOBS = 2
.PHONY: explore
explore: $(VENV_3)/.installed ## Random sequences of events around a bracket, e.g.: make explore SEEDS=1-1000 JOBS=2
	@$(VENV_3)/bin/python -m tests.stepped.explore --seeds $(SEEDS) --jobs $(JOBS)

.PHONY: fan-out
fan-out: $(VENV_3)/.installed ## 200 sources in one run on a real Airflow, while Coveo allows 250 calls in five minutes
	$(VENV_3)/bin/python benchmarks/fan_out.py

.PHONY: cluster
cluster: $(VENV_CLUSTER)/.installed ## Airflow with two Celery workers, as in docker-compose.yml; scripts/cluster stop ends it
	@scripts/cluster start

.PHONY: cluster-test
cluster-test: $(VENV_CLUSTER)/.installed ## Test pushes while a worker, the broker, the scheduler and others die
	@$(call pytest,$(VENV_CLUSTER),tests/cluster)

.PHONY: test-mysql
test-mysql: $(VENV_MYSQL)/.installed ## Test rows of a real MariaDB; on Debian and Ubuntu, install it (as root) if it is missing
	@$(call pytest,$(VENV_MYSQL),tests/unit/push/test_mysql.py)

# All cells take about an hour and a half.
.PHONY: test-matrix
test-matrix: $(UV) ## Test the supported Pythons and Airflows; CELLS="3.12-3.2 lowest" runs some of them
	@$(PYTHON_3) scripts/matrix.py run $(CELLS)

.PHONY: lint
lint: $(VENV_3)/.installed ## Style, types, and the imports between the layers
	$(VENV_3)/bin/ruff check .
	$(VENV_3)/bin/ruff format --check .
	$(VENV_3)/bin/mypy
	$(VENV_3)/bin/lint-imports

.PHONY: docs
docs: $(VENV_3)/.installed ## Build the documentation into build/docs; a warning, such as a dead link, fails the build
	@home=$$(mktemp -d); trap 'rm -rf "$$home"' EXIT; \
	AIRFLOW_HOME="$$home" $(VENV_3)/bin/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "Open build/docs/index.html"

.PHONY: lint-workflows
lint-workflows: $(VENV_RELEASE)/.installed ## Check the GitHub workflows and forms: schemas and security
	$(VENV_RELEASE)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV_RELEASE)/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(VENV_RELEASE)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms $(ISSUE_FORMS)
	$(VENV_RELEASE)/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(VENV_RELEASE)/bin/zizmor --quiet --offline --strict-collection .github

# The build is reproducible: the same commit gives the same wheel, byte for byte.
.PHONY: build
build: $(VENV_RELEASE)/.installed ## Build the wheel and the source distribution into dist/
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || date +%s) $(VENV_RELEASE)/bin/python -m build --no-isolation

.PHONY: check-dist
check-dist: build ## Check the contents of dist/, and that a package index can render its README
	$(VENV_RELEASE)/bin/twine check --strict dist/*
	$(VENV_RELEASE)/bin/check-wheel-contents dist/*.whl

# For the wheel in dist/, with the dependencies that it is tested with.
.PHONY: sbom
sbom: $(VENV_RELEASE)/.installed ## Write the software bill of materials (CycloneDX) to build/sbom.cdx.json
	@test -n "$$(ls dist/*.whl 2>/dev/null)" || $(MAKE) build
	@mkdir -p build
	$(UV) venv --quiet --clear --python "$(PYTHON_3)" build/sbom
	$(UV) pip install --quiet --python build/sbom --constraints $(CONSTRAINTS_3) --find-links dist \
		--refresh-package airflow-provider-coveo airflow-provider-coveo==$(VERSION) apache-airflow
	$(VENV_RELEASE)/bin/cyclonedx-py environment --output-reproducible --validate --output-file build/sbom.cdx.json build/sbom
	rm -rf build/sbom

.PHONY: check-version
check-version: $(UV) ## Check that version, CHANGELOG.md and test results match; TAG=v1.2.3 names the tag
	@$(PYTHON_3) scripts/release.py check $(TAG)

.PHONY: release-check
release-check: $(VENV_3)/.installed $(VENV_2)/.installed $(VENV_RELEASE)/.installed ## All checks of a release that can run before its tag is pushed
	@$(RUN_ALL) "documentation" docs "lint" lint "version" check-version "workflows" lint-workflows \
		"distributions" check-dist then "SBOM" sbom $(TEST_PARTS)

.PHONY: pictures
pictures: $(VENV_3)/.installed ## Take docs/pictures of a real Airflow's UI and the simulator's page in Chromium
	$(VENV_3)/bin/python scripts/pictures.py

.PHONY: constraints
constraints: $(UV) ## Pin the newest versions that fit, on all Pythons at once
	$(PYTHON_3) scripts/matrix.py constraints
	$(call compile,apache-airflow==$(AIRFLOW_3) $(CLUSTER),$(CONSTRAINTS_CLUSTER),setup.cfg --extra dev)
	$(call compile,$(RELEASE),$(CONSTRAINTS_RELEASE))

.PHONY: clean
clean: ## Delete what the other targets created
	rm -rf .venv build dist docs/_parts *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- internals ----------------------------------------------------------------------------------------------------

# Run pytest in a virtualenv, with its own Airflow home: $(call pytest,virtualenv,arguments)
define pytest
home=$$(mktemp -d); trap 'rm -rf "$$home"' EXIT; \
AIRFLOW_HOME="$$home" AIRFLOW__CORE__LOAD_EXAMPLES=False $(1)/bin/python -m pytest $(2) $(PYTEST_ARGS)
endef

# Resolve for all Pythons from 3.10: $(call compile,requirements,constraints file,further arguments)
define compile
printf '%s\n' $(1) | $(UV) pip compile --quiet --upgrade --universal --python-version 3.10 --no-annotate \
	--custom-compile-command "make constraints" $(3) - --output-file $(2)
endef

# Create a virtualenv with an Airflow and this project:
# $(call install,virtualenv,variable with the interpreter,constraints,further packages,newest Python,extras)
define install
@test -n "$($(2))" || { echo "Could not find a Python from 3.10 to $(5) (tried python3.12, python3.11, python3.10, python3)." \
	"Install one, or pass it: make $(MAKECMDGOALS) $(2)=/path/to/python" >&2; exit 1; }
$(UV) venv --quiet --clear --python "$($(2))" $(1)
$(UV) pip install --quiet --python $(1) --constraints $(3) --editable '.[$(or $(6),dev)]' apache-airflow $(4)
touch $@
endef

$(VENV_3)/.installed: $(CONSTRAINTS_3) $(INSTALLED_FROM) | $(UV)
	$(call install,$(VENV_3),PYTHON_3,$(CONSTRAINTS_3),$(DRIVERS_3),3.13,$(EXTRAS_3))

$(VENV_2)/.installed: $(CONSTRAINTS_2) $(INSTALLED_FROM) | $(UV)
	$(call install,$(VENV_2),PYTHON_2,$(CONSTRAINTS_2),$(DRIVERS_2),3.12)

# Airflow 3.0 does not run on Python 3.13.
.venv/bracket-%/.installed: constraints/airflow-%.txt $(INSTALLED_FROM) | $(UV)
	$(call install,$(@D),PYTHON_2,$<,$(DRIVERS_3),3.12)

$(VENV_CLUSTER)/.installed: $(CONSTRAINTS_CLUSTER) $(INSTALLED_FROM) | $(UV)
	$(call install,$(VENV_CLUSTER),PYTHON_3,$(CONSTRAINTS_CLUSTER),$(CLUSTER),3.13)

# Airflow's provider for MySQL compiles its driver, so the other virtualenvs don't include it.
$(VENV_MYSQL)/.installed: $(CONSTRAINTS_3) $(INSTALLED_FROM) | $(UV)
	@{ command -v mariadb-install-db && command -v mariadb_config; } >/dev/null || { apt-get update -qq && apt-get install --yes -qq \
		--no-install-recommends mariadb-server-core mariadb-client-core libmariadb-dev pkg-config gcc; } >/dev/null
	$(call install,$(VENV_MYSQL),PYTHON_3,$(CONSTRAINTS_3),$(DRIVERS_3) apache-airflow-providers-mysql,3.13)

$(VENV_RELEASE)/.installed: $(CONSTRAINTS_RELEASE) | $(UV)
	$(UV) venv --quiet --clear --python "$(PYTHON_3)" $(VENV_RELEASE)
	$(UV) pip install --quiet --python $(VENV_RELEASE) --constraints $(CONSTRAINTS_RELEASE) $(RELEASE)
	touch $@

$(UV):
	@test -n "$(PYTHON_3)" || { echo "Could not find a Python from 3.10 to 3.13." >&2; exit 1; }
	$(PYTHON_3) -m venv .venv/tools
	.venv/tools/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'
