# The one front door: `make` says what there is. Needs GNU make and Python 3.11+; uv is used when it
# is on the PATH (`make UV= …` does without it). Everything that is installed lies in .venv.
# Paths are relative on purpose: make splits words at spaces, and a checkout's folder may hold one.

.DEFAULT_GOAL := help
.PHONY: help init up extras down status demo compose-up compose-down compose-logs compose-test \
    test test-all test-stopped lint format bench scale docs docs-site dist vsix clean

BIN := .venv/bin
# Tests start some thousand processes, and six workers read every test: where Python may not keep what
# it has compiled, each of them compiles all of it again.
KEEPING := env -u PYTHONDONTWRITEBYTECODE
PYTEST := $(KEEPING) $(BIN)/pytest
# what the tests and checks need: a name, because `call` would take a comma for its own
EXTRAS := a2a,keyring,marimo,mcp,metrics,notify,otel,query,tui,web
CHECKED := .[dev,$(EXTRAS)]
# what goes into other people's environments, in distributions of its own
PACKAGES := $(wildcard packages/*/pyproject.toml)
OURS := $(patsubst %/pyproject.toml,-e %,$(PACKAGES))
UV ?= uv
#: One interpreter instead of the search: `make PYTHON=/opt/python3.12/bin/python3 test`
PYTHON ?=
#: pytest's processes, and what else it is told: `make test ARGS="tests/house -x"`. Half of a test's
#: time is waiting, so on two cores six are done sooner than four; the slow ones are loads themselves.
WORKERS ?=
ARGS ?=

# What a shell or an activated environment says about another Python must not reach this one.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
# Without bytecode every process of a mesh compiles itself, and every test process all the tests.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

init: .venv/.runtime ## install what is missing, see which tools are here, ask, and start the mesh
	@$(BIN)/opsmesh init $(ARGS)

up: .venv/.runtime ## install what is missing and start the mesh in the background
	@$(BIN)/opsmesh up --detach
	@case ":$$PATH:" in *":$$PWD/$(BIN):"*) ;; *) \
	    printf '\nTo have opsmesh on your PATH:\n  export PATH="%s:$$PATH"\n' "$$PWD/$(BIN)" ;; esac

extras: .venv/.runtime ## install what MCP, A2A, chat and mail, the keyring, SQL over the evidence, top and the page need
	@$(call install,.[$(EXTRAS)])

down: ## stop the mesh; events and evidence stay
	@if test -x $(BIN)/opsmesh; then $(BIN)/opsmesh down; \
	else echo "opsmesh is not installed here, so nothing of it runs: make up"; fi

status: ## what runs, and how it is
	@if test -x $(BIN)/opsmesh; then $(BIN)/opsmesh status; \
	else echo "opsmesh is not installed here: make up"; exit 1; fi

demo: .venv/.dev ## a tour on real input, under a minute, in a mesh of its own
	@$(BIN)/python demo/tour.py $(ARGS)

compose-up: .venv/.runtime ## the same mesh in containers (ARGS="--store volume", docs/compose.md)
	@$(BIN)/python deploy/compose.py up $(ARGS)

compose-down: ## stop the containers; events and evidence stay
	@if test -x $(BIN)/opsmesh; then $(BIN)/python deploy/compose.py down; \
	else echo "opsmesh is not installed here, so nothing of it runs: make compose-up"; fi

compose-logs: .venv/.runtime ## what the containers say (ARGS="-f agent")
	@$(BIN)/python deploy/compose.py do logs --tail 100 $(ARGS)

compose-test: .venv/.dev ## build the images from what is at hand, and test them (needs Docker)
	@$(PYTEST) -m "slow or not slow" tests/compose -rs -s $(ARGS)

test: .venv/.dev ## the tests that end within minutes (ARGS="tests/house -x", WORKERS=6)
	@$(PYTEST) -n $(or $(WORKERS),6) --dist loadgroup -m "not slow" $(ARGS)

test-all: .venv/.dev ## every test, the slow ones too
	@$(PYTEST) -n $(or $(WORKERS),4) --dist loadgroup --hypothesis-profile=thorough \
	    -m "slow or not slow" $(ARGS)

test-stopped: .venv/.dev ## make test, with random processes stopped for up to 4 s (SEED=1)
	@$(KEEPING) $(BIN)/python tests/stopped.py -n $(or $(WORKERS),6) --dist loadgroup -m "not slow" $(ARGS)

lint: .venv/.dev ## ruff, its formatter, mypy --strict and the one-way imports; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/.dev ## let ruff put the code in order
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: .venv/.dev ## measure this machine, beside plain nats-py in the same run
	@$(BIN)/python bench/run.py $(ARGS)

scale: .venv/.dev ## measure what many hosts run into, on this machine (ARGS="--only hub")
	@$(BIN)/python bench/scale.py $(ARGS)

docs: .venv/.dev ## write the pages that are made from the code (ARGS=--check: only compare)
	@$(BIN)/python docs/generate.py $(ARGS)

docs-site: .venv/.docs ## build the documentation as a site into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open build/site/index.html, or with its search: $(BIN)/python -m http.server -b 127.0.0.1 -d build/site"

dist: .venv/.dev ## build what is published, wheels and sdists of all packages, into dist/
	@rm -rf dist
	@for package in . $(PACKAGES:/pyproject.toml=); do \
	    (out="$$PWD/dist" python="$$PWD/$(BIN)/python"; cd "$$package" && \
	        "$$python" -m hatchling build --directory "$$out") >/dev/null || exit 1; \
	done
	@ls dist

vsix: .venv/.runtime ## pack the extension for VS Code into dist
	@$(BIN)/python -m opsmesh.producers.vscode.vsix dist

clean: ## remove what make made here: .venv, caches, builds; events and evidence stay
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make a second call fast: nothing is asked again until a pyproject.toml is newer, or the
# command itself, the one file that an installation copies. The second stamp waits for the first, so
# that `make -j` never runs two installations in one folder.
.venv/.runtime: pyproject.toml $(PACKAGES) cli/opsmesh/cli/launcher.sh | $(BIN)/python
	@echo "Installing opsmesh and what it needs into .venv …"
	@$(call install,.)
	@touch $@

.venv/.dev: pyproject.toml $(PACKAGES) .venv/.runtime
	@echo "Installing what its tests and checks need …"
	@$(call install,$(CHECKED))
	@touch $@

.venv/.docs: pyproject.toml .venv/.dev
	@echo "Installing what the documentation's site needs …"
	@$(call install,.[docs])
	@touch $@

# Of the packages here, those that opsmesh asks for come from here too; pip would look for them elsewhere.
# pip may be missing from a .venv that an uv made which has gone from the PATH since.
define install
if $(UV) --version >/dev/null 2>&1; then \
    $(UV) pip install --quiet --python $(BIN)/python $(OURS) -e '$(1)'; \
else \
    { $(BIN)/python -m pip --version || $(BIN)/python -m ensurepip; } >/dev/null 2>&1; \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check \
        $(OURS) -e '$(1)'; \
fi
endef

# A name on the PATH proves nothing: pyenv puts shims there for versions that do not run. So each
# candidate is run. Debian's Python comes without ensurepip until python3-venv is installed.
$(BIN)/python:
	@PYTHON='$(PYTHON)'; \
	if $(UV) --version >/dev/null 2>&1 && \
	    $(UV) venv --quiet --seed --clear --python "$${PYTHON:->=3.11}" .venv; then exit 0; fi; \
	bare=; \
	for name in "$$PYTHON" python3.13 python3.12 python3.11 python3; do \
	    test -n "$$name" || continue; \
	    if "$$name" -c 'import sys; assert sys.version_info >= (3, 11)' >/dev/null 2>&1; then \
	        if "$$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	            exec "$$name" -m venv --clear .venv; \
	        fi; \
	        bare="$$bare $$name"; \
	    fi; \
	    test "$$name" != "$$PYTHON" || break; \
	done; \
	if test -n "$$bare"; then \
	    echo "error: no venv module in:$$bare" >&2; \
	    echo "Install it (Debian, Ubuntu: apt install python3-venv) or uv, then run make again." >&2; \
	else \
	    echo "error: no Python 3.11 or newer runs here$${PYTHON:+ as $$PYTHON}" >&2; \
	    echo "Looked for: $${PYTHON:-python3.13 python3.12 python3.11 python3}." >&2; \
	    echo "Install one (or uv), or name it: make PYTHON=/path/to/python3 …" >&2; \
	fi; \
	exit 1
