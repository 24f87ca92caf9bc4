# The one front door: `make` says what there is. Needs GNU make and Python 3.11+; uv is used when it
# is on the PATH (`make UV= …` does without it). Everything that is installed lies in .venv.
# Paths are relative on purpose: make splits words at spaces, and a checkout's folder may hold one.

.DEFAULT_GOAL := help
.PHONY: help up extras down status demo test test-all lint format bench docs clean

BIN := .venv/bin
# what the tests and checks need: a name, because `call` would take a comma for its own
EXTRAS := a2a,keyring,mcp,notify,query
CHECKED := .[dev,$(EXTRAS)]
UV ?= uv
#: One interpreter instead of the search: `make PYTHON=/opt/python3.12/bin/python3 test`
PYTHON ?=
#: pytest's processes (they wait more than they compute: two to a core), and what else it is told: `make test ARGS="tests/house -x"`
WORKERS ?= 4
ARGS ?=

# What a shell or an activated environment says about another Python must not reach this one.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

up: .venv/.runtime ## install what is missing and start the mesh in the background
	@$(BIN)/opsmesh up --detach
	@case ":$$PATH:" in *":$$PWD/$(BIN):"*) ;; *) \
	    printf '\nTo have opsmesh on your PATH:\n  export PATH="%s:$$PATH"\n' "$$PWD/$(BIN)" ;; esac

extras: .venv/.runtime ## install what MCP, A2A, chat and mail, the keyring and SQL over the evidence need
	@$(call install,.[$(EXTRAS)])

down: ## stop the mesh; events and evidence stay
	@if test -x $(BIN)/opsmesh; then $(BIN)/opsmesh down; \
	else echo "opsmesh is not installed here, so nothing of it runs: make up"; fi

status: ## what runs, and how it is
	@if test -x $(BIN)/opsmesh; then $(BIN)/opsmesh status; \
	else echo "opsmesh is not installed here: make up"; exit 1; fi

demo: .venv/.dev ## a tour on real input, under a minute, in a mesh of its own
	@$(BIN)/python demo/tour.py $(ARGS)

test: .venv/.dev ## the tests that end within minutes (ARGS="tests/house -x", WORKERS=4)
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m "not slow" $(ARGS)

test-all: .venv/.dev ## every test, the slow ones too
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m "slow or not slow" $(ARGS)

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

docs: .venv/.dev ## write the pages that are made from the code (ARGS=--check: only compare)
	@$(BIN)/python docs/generate.py $(ARGS)

clean: ## remove what make made here: .venv, caches, builds; events and evidence stay
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make a second call fast: nothing is asked again until pyproject.toml is newer. The
# second stamp waits for the first, so that `make -j` never runs two installations in one folder.
.venv/.runtime: pyproject.toml | $(BIN)/python
	@echo "Installing opsmesh and what it needs into .venv …"
	@$(call install,.)
	@touch $@

.venv/.dev: pyproject.toml .venv/.runtime
	@echo "Installing what its tests and checks need …"
	@$(call install,$(CHECKED))
	@touch $@

# pip may be missing from a .venv that an uv made which has gone from the PATH since.
define install
if $(UV) --version >/dev/null 2>&1; then \
    $(UV) pip install --quiet --python $(BIN)/python -e '$(1)'; \
else \
    { $(BIN)/python -m pip --version || $(BIN)/python -m ensurepip; } >/dev/null 2>&1; \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '$(1)'; \
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
