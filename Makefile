# Two commands on a fresh machine: `make demo` and `make test`. `make quick` leaves out the tests marked slow.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
APP    := $(VENV)/app

.PHONY: demo test test-app quick lint check docs format audit clean

demo: $(STAMP)
	$(BIN)/potstill demo
	$(BIN)/potstill shrink digits --minutes 1.5 --max-bytes 20kB --out runs/shrink-digits

test: $(STAMP)
	$(BIN)/python -m pytest

test-app: $(APP)/installed
	$(APP)/bin/python -m pytest tests/api/test_app.py

quick: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

check: lint test

# The documentation site, in site/: warnings are errors, nothing is requested from the network.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The licence of each installed package, and the known vulnerabilities of its version. Needs the network: pip-audit asks
# pypi.org, and by itself calls a package that it could not look up no problem, hence --strict.
audit: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit pip-licenses
	$(BIN)/pip-licenses --order=license --format=plain
	$(BIN)/python -m pip list --format=freeze --exclude-editable | sed 's/+[^ ]*$$//' > $(VENV)/installed.txt
	@$(BIN)/pip-audit --requirement $(VENV)/installed.txt --no-deps --disable-pip --strict --progress-spinner off && \
	  echo "No known vulnerabilities." || { echo "Not passed: the packages above have known vulnerabilities, or one could" \
	  "not be looked up (a mirror without vulnerability data, or no network). Run it where https://pypi.org answers."; \
	  exit 1; }

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# axe-playwright-python carries axe-core, which the tests of the pages run in Chromium. --no-deps: Playwright is not used.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps axe-playwright-python==0.1.8
	touch $(STAMP)

# The extra [app] needs pillow < 13, the tested versions have a newer one: an environment of its own, over the other one.
$(APP)/installed: $(STAMP)
	$(PYTHON) -m venv $(APP)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	  > "$$($(APP)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/tested-together.pth"
	grep -v '^pillow=' constraints.txt > $(APP)/constraints.txt
	$(APP)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(APP)/constraints.txt \
	  --editable '.[app]'
	touch $@

clean:
	rm -rf $(VENV) build dist site src/*.egg-info
