# The two commands for a newcomer are `make run` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
FUZZ   := .cache/fuzz-venv
FUZZ_SECONDS ?= 60

.PHONY: run test test-long test-desktop check format bench clients fuzz model clean

run: $(VENV)/installed
	@$(BIN)/python -m gateway.demo.tour

test: $(VENV)/installed
	@sh tests/install-peers
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-long: $(VENV)/installed
	@sh tests/install-peers
	$(BIN)/python -m pytest -m long

# A real Thunderbird, apart from the others because it is big to install: tests/install-peers.
test-desktop: $(VENV)/installed
	@SMARTHOST_DESKTOP=1 sh tests/install-peers
	$(BIN)/python -m pytest tests/e2e/test_thunderbird.py

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed
	$(BIN)/python -m bench.side_by_side

# The table of docs/clients.md, from what the tests of mail clients have shown just now; all clients have to be there.
clients: $(VENV)/installed
	@SMARTHOST_DESKTOP=1 sh tests/install-peers
	@mkdir -p .cache && rm -f .cache/clients
	SMARTHOST_CLAIMS=.cache/clients $(BIN)/python -m pytest -m "shows and not long" -n 2 --dist loadfile tests/e2e
	$(BIN)/python -m tests.support.clients .cache/clients docs/clients.md

# The spam filter's model that ships. What it is made from, and why not from more: docs/spam.md.
model: $(VENV)/installed
	$(BIN)/smarthost spam model $(CORPUS) --without pot-spam --made "$(MADE)"

# Each target of tests/fuzz for FUZZ_SECONDS; what is found is in .cache/fuzz/TARGET/found.
fuzz: $(FUZZ)/installed
	$(FUZZ)/bin/python -m tests.fuzz.run all $(FUZZ_SECONDS)

# atheris is in no lock file: nothing else needs it, and it has wheels for few systems.
$(FUZZ)/installed: requirements.lock
	@echo "== making $(FUZZ) with atheris"
	@test -x $(FUZZ)/bin/python || $(PYTHON) -m venv $(FUZZ)
	@$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock atheris==3.0.0
	@touch $@

$(VENV)/installed: requirements.lock pyproject.toml
	@echo "== making $(VENV) and installing Smarthost with what it needs"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
