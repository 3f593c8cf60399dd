# The commands of a fresh clone: `make demo` and `make test`. They need Rust 1.94 or newer
# (rustup.rs), a C++ compiler, nasm (on x86-64) and python3 with pip.
#
#   GPU=1     also install the CUDA libraries (2.5 GB to download)
#   ARGS=...  arguments of the test runner, for example ARGS=status
#   DATA=...  directory of face images for the demo and the benchmarks

PYTHON ?= python3
GPU ?=
ARGS ?=
VENV := .venv
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
PIP_INSTALL = PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore $(PYTHON) -m pip install --quiet --disable-pip-version-check --only-binary=:all: \
	--target "$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
export GPU DATA ARGS

.DEFAULT_GOAL := help
# cargo uses all cores, and two cargo processes wait for each other.
.NOTPARALLEL:
.PHONY: help setup dashboard build demo test test-rust test-python test-dashboard test-torch test-onnx test-perf-analyzer bench-accuracy bench-train bench-serve bench-peers bench-pressure bench-tracing soak fuzz book book-reference lint deny sbom test-asan test-miri clean

help: ## List these targets
	@echo "make TARGET [GPU=1] [ARGS=...] [DATA=directory]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

setup: ## Check the tools and install libtorch to .libtorch (unless LIBTORCH is exported)
	@command -v $(PYTHON) >/dev/null || { echo "setup: $(PYTHON) is missing: install it with \`sudo apt install python3 python3-pip\` (Debian, Ubuntu) or \`sudo dnf install python3 python3-pip\` (Fedora, RHEL)" >&2; exit 1; }
	@$(PYTHON) deploy/tools/setup-libtorch.py

# The dashboard is embedded in the program; without Node.js the program lacks it.
dashboard: src/dashboard/web/dist/index.html ## Build the dashboard to src/dashboard/web/dist (with Node.js 20.19 or newer)

src/dashboard/web/dist/index.html: src/dashboard/web/package-lock.json src/dashboard/web/index.html $(shell find src/dashboard/web/src src/dashboard/web/scripts src/dashboard/web/public proto/visage -type f 2>/dev/null)
	@if command -v npm >/dev/null; then \
		echo "building the dashboard"; \
		{ cd src/dashboard/web && npm ci --silent && npm run --silent build; } || { echo "build: failed to build the dashboard (npm's error is above); the program will not include it" >&2; }; \
	else \
		echo "build: npm is missing; the program will not include the dashboard: install Node.js 20.19 or newer and run \`make build\` again" >&2; \
	fi

build: setup dashboard ## Build the release binary, with the dashboard if Node.js is installed
	CARGO_INCREMENTAL=0 cargo build --release

demo: build ## Build, start a server, fine-tune on DATA, watch, predict, show the metrics
	deploy/tools/demo.sh

test: test-rust test-python ## Run all tests: Rust, then the Python client

# One test more than cores in parallel: many wait for processes and files.
test-rust: setup ## Run the Rust tests, with cargo-nextest where it is installed
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -ex; \
		cargo nextest run --release --workspace --test-threads $$(($$(nproc) + 1)) $(ARGS); \
		if [ -z "$$ARGS" ]; then cargo test --release --workspace --doc; fi; \
	else \
		set -ex; \
		cargo test --release --workspace $(ARGS); \
	fi

# The tests start the binary in VISAGE_BIN.
test-python: setup $(VENV)/installed ## Run the tests of the Python client
	cargo build --release --workspace
	VISAGE_BIN="$(abspath $(TARGET_DIR))/release/visage" $(VENV)/bin/python -m unittest discover -s tests/python

test-dashboard: setup dashboard ## Test the dashboard: its logic, and its pages in Chromium (Debian's package chromium)
	cargo build --release
	cd src/dashboard/web && npm run check && npm test
	cd src/dashboard/web && VISAGE_BIN="$(abspath $(TARGET_DIR))/release/visage" npm run e2e

# torchvision is the reference for predictions; with its CUDA libraries it is too large for
# `make test`.
test-torch: setup $(VENV)/torch-installed ## Compare a checkpoint with torchvision (2.5 GB to download)
	cargo build --release --workspace
	VISAGE_BIN="$(abspath $(TARGET_DIR))/release/visage" $(VENV)/bin/python -m unittest discover -s tests/python -p test_torchvision.py

# A separate build, because all crates are instrumented; it takes some 20 minutes on two cores. The
# option is unstable, hence RUSTC_BOOTSTRAP. libtorch is not instrumented, and its global objects
# look like leaks.
ASAN_TESTS := model::fused:: model::slices:: model::resnet18:: training::optimizer:: training::worker::full_checkpoint:: inference::loaded:: imaging::jpeg:: priority::
test-asan: setup ## Run the unit tests of the modules with unsafe code under AddressSanitizer (x86-64)
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_INCREMENTAL=0 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 ASAN_OPTIONS=detect_leaks=0 \
		cargo test --release --lib --target x86_64-unknown-linux-gnu --target-dir "$(TARGET_DIR)/asan" -- $(or $(ARGS),$(ASAN_TESTS))

# Miri cannot call libtorch and has no AVX-512, so it runs plain Rust with unsafe code only.
test-miri: ## Run the tests of buffers and threads under Miri (needs a nightly compiler with Miri)
	@if cargo +nightly miri --version >/dev/null 2>&1; then \
		$(MAKE) setup && MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --lib --target-dir "$(TARGET_DIR)/miri" -- $(or $(ARGS),model::fused::memory:: model::fused::threads::team::); \
	else \
		echo "test-miri: Miri is missing; install it with \`rustup toolchain install nightly --component miri\`" >&2; exit 1; \
	fi

test-onnx: setup $(VENV)/onnx-installed ## Run exported ONNX files in onnxruntime and OpenVINO (100 MB to download)
	cargo build --release --workspace
	VISAGE_BIN="$(abspath $(TARGET_DIR))/release/visage" $(VENV)/bin/python -m unittest discover -s tests/python -p test_export.py

# Triton's load generator: 17 MB that only this test needs.
test-perf-analyzer: setup $(VENV)/perf-analyzer/perf_analyzer ## Measure a server with Triton's perf_analyzer (17 MB to download)
	cargo build --release --workspace
	VISAGE_BIN="$(abspath $(TARGET_DIR))/release/visage" PERF_ANALYZER="$(abspath $(VENV)/perf-analyzer)" \
		$(VENV)/bin/python -m unittest discover -s tests/python -p test_perf_analyzer.py

bench-accuracy: build $(VENV)/installed ## Train from all initial weights with all recipes and compare the errors (DATA=directory ROWS=best,fast SEEDS=3 IMAGES=0 EPOCHS=3 SIDE=224)
	$(VENV)/bin/python tests/bench/accuracy.py --visage "$(abspath $(TARGET_DIR))/release/visage" --data "$(DATA)" \
		$(if $(ROWS),--rows $(ROWS)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(IMAGES),--images $(IMAGES)) $(if $(EPOCHS),--epochs $(EPOCHS)) \
		$(if $(SIDE),--side $(SIDE)) $(if $(BENCH_JSON),--json "$(BENCH_JSON)")

# Inputs that the fuzzer finds are kept in tests/fuzz/corpus for the next run. No sanitizer: the
# fuzzed code has no unsafe code, and runs several times as fast. The fuzz targets have no search
# path for libtorch, hence LD_LIBRARY_PATH.
fuzz: setup ## Fuzz the parsers of untrusted input (SECONDS=60 for each target; needs cargo-fuzz and a nightly compiler)
	@for target in image open_inference; do \
		seeds="tests/fixtures/imaging tests/fixtures/jpeg"; [ $$target = image ] || seeds=tests/fuzz/seeds/$$target; \
		mkdir -p tests/fuzz/corpus/$$target; \
		LD_LIBRARY_PATH="$$(dirname "$$(readlink -f "$${LIBTORCH:-$(CURDIR)/.libtorch/sdk}/lib/libtorch_cpu.so")")" \
		cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none --release $$target tests/fuzz/corpus/$$target $$seeds -- \
			-max_total_time=$(or $(SECONDS),60) -timeout=20 -rss_limit_mb=2048 -max_len=65536 || exit 1; \
	done

bench-train: build $(VENV)/torch-installed ## Compare the training speed with PyTorch scripts (DATA=directory ROUNDS=3 IMAGES=1000 TRAINABLE=ALL BENCH_JSON=file)
	$(VENV)/bin/python tests/bench/train.py --visage "$(abspath $(TARGET_DIR))/release/visage" $(if $(DATA),--data "$(DATA)") \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(IMAGES),--images $(IMAGES)) $(if $(TRAINABLE),--trainable "$(TRAINABLE)") \
		$(if $(BENCH_JSON),--json "$(BENCH_JSON)")

# Debian's venv module lacks pip, so the environment is created without pip and filled by the
# system's pip.
$(VENV)/installed: tests/python/requirements.txt
	@rm -rf $(VENV)
	@$(PYTHON) -m venv --without-pip $(VENV) || { rm -rf $(VENV); echo "test: failed to create $(VENV) for the Python client tests: install the venv module with \`sudo apt install python3-venv\` (Debian, Ubuntu) or \`sudo dnf install python3\` (Fedora, RHEL)" >&2; exit 1; }
	@echo "installing the packages of the Python client tests to $(VENV)"
	@$(PIP_INSTALL) --requirement tests/python/requirements.txt || { rm -rf $(VENV); echo "test: pip failed to install tests/python/requirements.txt (its error is above): check the network, and that \`$(PYTHON) -m pip\` runs" >&2; exit 1; }
	@touch $@

$(VENV)/torch-installed: $(VENV)/installed tests/python/requirements-torch.txt
	@echo "installing torchvision to $(VENV)"
	@$(PIP_INSTALL) --requirement tests/python/requirements-torch.txt || { echo "test: pip failed to install tests/python/requirements-torch.txt (its error is above): check the network and the disk (7 GB)" >&2; exit 1; }
	@touch $@

$(VENV)/onnx-installed: $(VENV)/installed tests/python/requirements-onnx.txt
	@echo "installing onnxruntime and OpenVINO to $(VENV)"
	@$(PIP_INSTALL) --requirement tests/python/requirements-onnx.txt || { echo "test: pip failed to install tests/python/requirements-onnx.txt (its error is above): check the network" >&2; exit 1; }
	@touch $@

$(VENV)/bench-installed: $(VENV)/torch-installed tests/bench/requirements.txt
	@echo "installing the peers of the benchmarks to $(VENV)"
	@$(PIP_INSTALL) --requirement tests/bench/requirements.txt || { echo "bench: pip failed to install tests/bench/requirements.txt (its error is above): check the network" >&2; exit 1; }
	@touch $@

bench-peers: $(VENV)/bench-installed ## Install the servers that bench-serve compares with: MLServer, TorchServe (needs Java 17), Triton (2 GB)
	$(VENV)/bin/python tests/bench/peers/install.py $(VENV)/peers

bench-serve: build $(VENV)/bench-installed ## Compare the serving speed with raw engines and other servers (DATA=directory ROUNDS=3 BENCH_JSON=file)
	$(VENV)/bin/python tests/bench/serve.py --visage "$(abspath $(TARGET_DIR))/release/visage" --environments $(VENV)/peers $(if $(DATA),--data "$(DATA)") \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(BENCH_JSON),--json "$(BENCH_JSON)")

bench-pressure: build $(VENV)/installed ## Measure predictions during version swaps, overload and a training (DATA=directory SECONDS=60 APART=1 BENCH_JSON=file)
	CARGO_INCREMENTAL=0 cargo build --release --workspace
	$(VENV)/bin/python tests/bench/pressure.py --visage "$(abspath $(TARGET_DIR))/release/visage" --load "$(abspath $(TARGET_DIR))/release/visage-load" $(if $(DATA),--data "$(DATA)") \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(APART),--apart) $(if $(BENCH_JSON),--json "$(BENCH_JSON)")

bench-tracing: build $(VENV)/installed ## Measure the cost of traces (DATA=directory ROUNDS=10 SECONDS=10 BENCH_JSON=file)
	CARGO_INCREMENTAL=0 cargo build --release --workspace
	$(VENV)/bin/python tests/bench/tracing.py --visage "$(abspath $(TARGET_DIR))/release/visage" --load "$(abspath $(TARGET_DIR))/release/visage-load" $(if $(DATA),--data "$(DATA)") \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(BENCH_JSON),--json "$(BENCH_JSON)")

soak: build $(VENV)/installed ## Kill, starve and interrupt a server under load, and check that nothing is lost (DATA=directory of faces MINUTES=30)
	VISAGE_BIN="$(abspath $(TARGET_DIR))/release/visage" $(VENV)/bin/python tests/soak/soak.py --faces "$(DATA)" $(if $(MINUTES),--minutes $(MINUTES))

$(VENV)/perf-analyzer/perf_analyzer: tests/python/setup_perf_analyzer.py | $(VENV)/installed
	@echo "installing perf_analyzer to $(VENV)/perf-analyzer"
	@$(PYTHON) $< $(@D) || { rm -rf $(@D); exit 1; }
	@touch $@

book: ## Build the documentation to deploy/book/html (with mdBook 0.4)
	@command -v mdbook >/dev/null || { echo "book: mdbook is missing: install it with \`cargo install mdbook --version 0.4.52 --no-default-features\`, or read deploy/book/src" >&2; exit 1; }
	mdbook build deploy/book

book-reference: setup $(VENV)/installed ## Generate the book's reference from the protos and the program
	cargo build --release --workspace
	$(VENV)/bin/python deploy/book/generate.py --visage "$(abspath $(TARGET_DIR))/release/visage"

lint: setup ## Check formatting, clippy and the documentation
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --release --workspace --no-deps

deny: ## Check licences, sources and advisories of the dependencies (cargo-deny; ADVISORY_DB=directory for a clone of the advisories)
	@deploy/tools/deny.sh

sbom: ## Write the bill of materials of the program to target/sbom.json (CycloneDX)
	@mkdir -p "$(TARGET_DIR)"
	@$(PYTHON) deploy/tools/sbom.py --output "$(TARGET_DIR)/sbom.json"

clean: ## Remove build results (but not libtorch: `rm -r .libtorch`)
	cargo clean
	rm -rf $(VENV)
