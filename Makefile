# Commands for people and CI. `make` alone lists them.

PYTHON ?= python3
BIN := .venv/bin
DOCKER ?= docker
REGISTRY ?= tollgate
TAG ?= latest
NAMESPACE ?= default
HELM_RELEASE ?= tollgate
FUNCTIONS := build/functions
export PYTHONUNBUFFERED := 1
# Without cached bytecode, every process compiles all its modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help up install test docs drift bench bench-quick chaos rehearse lint format types imports words messages client-typescript lock stale clean
.PHONY: images compose-env test-chart test-compose test-cluster test-locks test-rolling test-slow functions-build functions-deploy keys roll

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# exec, so that a signal to make reaches the runner directly.
up: .venv/local.stamp ## Run the whole platform on this machine (Ctrl-C stops it)
	@exec $(BIN)/tollgate up

install: .venv/local.stamp ## Only install the tollgate command, as .venv/bin/tollgate

test: .venv/dev.stamp ## Set up what the tests need, then run them (COSTLY=1: the costly ones too, as CI does)
	@scripts/test-tools.sh
	@exec $(BIN)/pytest -n 4 --dist worksteal $(if $(COSTLY)$(filter true,$(CI)),--costly)

# The builds see this shell's PIP_INDEX_URL (a package mirror) and PIP_CERT (a path in BASE).
images: REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
images: ## Build all five images: REGISTRY=, TAG=, BASE=, BUILD_FLAGS= (such as --push)
	@for name in auth billing console inference trainer; do \
	  echo "==> building $(REGISTRY)/tollgate-$$name:$(TAG)" && \
	  $(DOCKER) build $(BUILD_FLAGS) --target $$name --tag $(REGISTRY)/tollgate-$$name:$(TAG) \
	    $(if $(BASE),--build-arg BASE=$(BASE)) --build-arg PIP_INDEX_URL --build-arg PIP_CERT \
	    --label org.opencontainers.image.version=$(TAG) \
	    --label org.opencontainers.image.revision=$(REVISION) . || exit 1; \
	done

compose-env: ## Create .env for docker-compose.yml with random passwords; DOMAIN= for HTTPS
	@$(PYTHON) scripts/compose_env.py $(DOMAIN)

test-chart: .venv/dev.stamp ## Run the chart's suites, deploy/helm/tollgate/tests (helm-unittest)
	@scripts/go-tools.sh
	@exec .tools/bin/helm-unittest deploy/helm/tollgate

test-compose: .venv/dev.stamp ## Build the images, bring docker-compose.yml up, and pay for a prediction
	@exec $(BIN)/pytest -m compose -s tests/e2e/compose

test-cluster: .venv/dev.stamp ## Install, upgrade, roll back and scale the chart on a real control plane
	@scripts/cluster-tools.sh
	@exec $(BIN)/pytest -m cluster -s tests/e2e/cluster

test-rolling: .venv/dev.stamp ## Replace, scale and drain real services behind HAProxy, under load
	@scripts/test-tools.sh
	@exec $(BIN)/pytest -m rolling tests/e2e/rolling

test-slow: .venv/dev.stamp ## Run the slow tests, tests that make test runs on one database, and properties on many examples
	@scripts/test-tools.sh
	@scripts/mustang.sh
	@$(BIN)/pytest -m slow --costly
	@$(BIN)/pytest -m any_database --every-database --costly
	@exec $(BIN)/pytest tests/unit --hypothesis-profile thorough

test-locks: ## Resolve every lock with one version of pip: PIP=22.3 (default: the newest)
	@exec $(PYTHON) scripts/try_locks.py $(PIP)

bench: .venv/dev.stamp ## Measure everything and write bench/RESULTS.md (30 minutes; EVENTS= for long tables)
	@exec $(BIN)/python -m bench --results bench $(if $(EVENTS),--events $(EVENTS))

bench-quick: .venv/dev.stamp ## Compare predictions with a bare app that serves the same model (2 minutes)
	@exec $(BIN)/python -m bench --quick --seconds 2

chaos: .venv/dev.stamp ## Kill services at random under load; SEED=, SECONDS= (1000 in full)
	@exec $(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

rehearse: .venv/dev.stamp ## Rehearse the loop: data served, a broken release rolled back (2 minutes)
	@scripts/test-tools.sh
	@exec $(BIN)/python -m rehearse

# It leaves .venv with unlocked packages: run make clean afterwards.
drift: .venv/dev.stamp ## Test billing with the newest database driver, whatever the pins say
	$(BIN)/python -m pip install --quiet --upgrade aiomysql PyMySQL
	@exec $(BIN)/pytest -n 2 tests/integration/billing

functions-build: ## Assemble the functions to deploy: build/functions/
	@$(PYTHON) scripts/functions_build.py $(FUNCTIONS)

functions-deploy: functions-build ## Deploy both functions: FLAGS="--project … " (--help lists them)
	@$(PYTHON) scripts/functions_deploy.py $(FUNCTIONS) $(FLAGS)

keys: ## Fetch keys from Secret Manager into .keys/: SIGNING_SECRET=, TRUSTED_SECRETS="a b"
	@scripts/keys.sh "$(SIGNING_SECRET)" "$(TRUSTED_SECRETS)"

roll: ## Roll images out to the cluster: REGISTRY=, TAG=, NAMESPACE=, HELM_RELEASE=
	helm upgrade --install $(HELM_RELEASE) deploy/helm/tollgate --namespace $(NAMESPACE) \
	  --reset-then-reuse-values --set-string image.registry=$(REGISTRY) \
	  --set-string image.tag=$(TAG) --atomic --timeout 10m

lint: .venv/dev.stamp ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck --severity=warning .ci/run $$(git ls-files '*.sh')

format: .venv/dev.stamp ## Format the sources
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

types: .venv/dev.stamp ## Check types
	$(BIN)/mypy
	$(BIN)/mypy scripts/*.py

imports: .venv/dev.stamp ## Check the import rules
	PYTHONPATH=clients/python $(BIN)/lint-imports

words: .venv/dev.stamp ## Check that the prose is plain English
	$(BIN)/python scripts/words.py

docs: .venv/dev.stamp ## Build the docs site, build/docs, and check its links
	@NO_MKDOCS_2_WARNING=1 PYTHONPATH=.:scripts $(BIN)/mkdocs build --strict --quiet

messages: .venv/dev.stamp ## Generate gRPC's messages from their .proto files (needs the package index)
	cd services/inference/api/grpc/messages && $(CURDIR)/$(BIN)/uv run --no-project --with grpcio-tools==1.85.1 \
	  python -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. open_inference.proto outline.proto

client-typescript: .venv/dev.stamp ## Generate and compile the TypeScript client (needs Node.js and the npm registry)
	@$(BIN)/python scripts/client_typescript.py

lock: .venv/dev.stamp ## Pin the dependencies of pyproject.toml (needs the package index)
	$(BIN)/python scripts/lock.py

stale: .venv/dev.stamp ## Check that the pins and the chart's schema and README are up to date
	$(BIN)/python scripts/lock.py --check
	$(BIN)/python scripts/chart_docs.py --check

clean: ## Remove .venv and every cache; state folders stay
	rm -rf .venv .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Rebuilt whenever the pins or the project have changed. INSTALLER=pip installs without uv.
.venv/%.stamp: requirements/%.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Tollgate needs Python 3.11 or newer; $(PYTHON) is older or missing (set make PYTHON=…)" >&2; \
	  exit 1; }
	@$(PYTHON) scripts/install.py $*
