# Every task of the project; `make help` lists them. All of them work in .venv, which is made
# on first use from pyproject.toml's dependency groups.

PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
SOURCES := $(wildcard src/*) $(wildcard cysoftmax/*.pyx cysoftmax/*.pxd cysoftmax/include/*) setup.py
C_FILES := $(wildcard src/*.c src/*.h src/*.inc cysoftmax/include/*.h tests/*.c \
  tests/kernels/*.[ch] tests/compiled/*.c tests/fuzz/*.c benchmarks/*.c)
C_FLAGS := $(shell grep -v '^\#' src/flags.txt) -Isrc \
  -Wall -Wextra -Wpedantic -Wmissing-prototypes -Werror
# The hash of what tests/kernels computes.
BITS := $(shell sed -n 's/^kernels //p' tests/bits.txt)
# What a variant of the build starts from: the sources, without what was built in place.
VARIANT_FILES := setup.py pyproject.toml README.md LICENSE MANIFEST.in cysoftmax src

.DEFAULT_GOAL := help

.PHONY: help
help:  ## List the tasks
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort | expand -t 22

$(VENV)/.tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing the tools of pyproject.toml (half a minute)"
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	@echo "compiling cysoftmax (half a minute)"
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps \
	  --config-settings editable_mode=compat --editable .
	touch $@

.PHONY: build
build: $(VENV)/.built  ## Build the library and install it into .venv, in place

.PHONY: demo
demo: build  ## Train a classifier of handwritten digits and draw what it learned
	$(BIN)/python examples/digits.py

.PHONY: demo-logistic demo-evaluate
demo-logistic: build  ## Fit softmax regressions, dense and sparse, and compare with scikit-learn
	$(BIN)/python examples/logistic_regression.py
demo-evaluate: build  ## Evaluate a file of logits in bounded memory and draw the calibration
	$(BIN)/python examples/evaluate.py

# Tests run in two processes: some of them use a few threads each. A file whose tests share something
# that takes half a minute is a group, which stays in one process.
PYTEST := $(BIN)/pytest -n 2 --dist loadgroup

.PHONY: test
test: build  ## Run the tests, the numerical ones for each instruction set of this machine
	$(PYTEST) tests
	$(BIN)/pytest -o filterwarnings=error --doctest-modules cysoftmax \
	  --ignore=cysoftmax/torch.py --ignore=cysoftmax/_torch.py \
	  --ignore=cysoftmax/dask.py --ignore=cysoftmax/_dask.py  # test-peers has PyTorch and dask

.PHONY: test-all
test-all: build  ## Run every test, the exhaustive and the slow ones too (4 minutes, 9 GB)
	$(BIN)/pytest -m "" -s --durations=10 tests

# The arguments, the dtypes and the arrays: what NumPy's versions may differ in. The library is built
# with the newest NumPy, as wheels are. (NumPy 2.0 is for Python 3.11 and 3.12.)
OLDEST := $(abspath $(VENV))/oldest
OLDEST_NUMPY := $(shell sed -n 's/^dependencies = \["numpy>=\(.*\)"\]/\1/p' pyproject.toml)
OLDEST_TESTS := $(addprefix tests/,test_errors.py test_arrays.py test_arrays_after_errors.py \
  test_targets.py test_sparse.py test_overlap.py test_threads.py options/test_option_errors.py)

$(OLDEST)/.tools: pyproject.toml $(VENV)/.tools
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST)/bin/python -m pip install --quiet --only-binary numpy "numpy==$(OLDEST_NUMPY).*" \
	  --group test
	touch $@

.PHONY: test-oldest
test-oldest: build $(OLDEST)/.tools  ## Run a part of the tests with the oldest NumPy (a minute)
	PYTHONPATH=$(CURDIR) $(OLDEST)/bin/pytest -n 2 $(OLDEST_TESTS)

# The peers are large, and may want other versions of what the tools want: a venv of their own.
PEERS := $(abspath $(VENV))/peers

$(PEERS)/.tools: pyproject.toml $(VENV)/.tools
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	@echo "installing the other libraries of pyproject.toml (a minute or more, 2 GB)"
	$(PEERS)/bin/python -m pip install --quiet --group peers
	touch $@

.PHONY: peers-setup
peers-setup: $(PEERS)/.tools  ## Install the libraries that `make test-peers` compares with

.PHONY: test-peers
test-peers: build $(PEERS)/.tools  ## Compare with PyTorch, SciPy, scikit-learn, optax, LightGBM, dask
	PYTHONPATH=$(CURDIR) $(PEERS)/bin/pytest -n 2 --dist loadfile -m peers tests/peers

.PHONY: accuracy
accuracy: build $(PEERS)/.tools  ## Write the largest errors, beside other libraries, into docs/accuracy.md
	PYTHONPATH=$(CURDIR) $(PEERS)/bin/python -m benchmarks.errors --write docs/accuracy.md

# What only `make compare` needs, in the same venv.
$(PEERS)/.compare: $(PEERS)/.tools
	$(PEERS)/bin/python -m pip install --quiet --group compare
	touch $@

.PHONY: demo-cluster
demo-cluster: build $(PEERS)/.tools  ## Loss and gradient of 4 GiB of logits, in workers of 600 MiB
	PYTHONPATH=$(CURDIR) $(PEERS)/bin/python examples/cluster.py

.PHONY: demo-boosting
demo-boosting: build $(PEERS)/.tools  ## Train LightGBM and XGBoost on soft labels
	PYTHONPATH=$(CURDIR) $(PEERS)/bin/python examples/boosting.py

.PHONY: demo-language
demo-language: build $(PEERS)/.tools  ## Train a language model in PyTorch with our loss and its own
	PYTHONPATH=$(CURDIR) $(PEERS)/bin/python examples/language_model.py

.PHONY: demos
demos: demo demo-logistic demo-evaluate demo-boosting demo-language demo-hmm demo-cluster  ## Run all the examples

.PHONY: demo-hmm
demo-hmm: build  ## Build a hidden Markov model that calls the library from Cython, and compare
	rm -rf build/hmm
	mkdir -p build
	cp -r examples/hmm build
	cd build/hmm && $(BIN)/python setup.py --quiet build_ext --inplace && $(BIN)/python demo.py

.PHONY: test-dashboard
test-dashboard: build $(VENV)/.bench  ## Test the benchmarks and, in Chromium, the dashboard
	$(BIN)/asv check --python=same
	$(BIN)/pytest -m "dashboard and not slow" tests/test_benchmarks.py tests/test_compare.py \
	  tests/test_dashboard.py

.PHONY: test-c
test-c: build/test_kernels  ## Test the kernels from C, without Python
	build/test_kernels --expect $(BITS)
	[ "$$(uname -m)" != x86_64 ] || tests/check_prefetch.sh $(CC) $(C_FLAGS)

# Build the C tests as build/$(1), by the command $(2), two files at a time.
define c_tests
rm -rf build/$(1).o
mkdir -p build/$(1).o
printf '%s\n' tests/kernels/*.c src/*.c | \
  xargs -P 2 -I FILE sh -c '$(2) -c FILE -o build/$(1).o/$$(basename FILE).o'
$(2) build/$(1).o/*.o -lm -o build/$(1)
endef

build/test_kernels: $(C_FILES) src/flags.txt
	$(call c_tests,test_kernels,$(CC) $(C_FLAGS))

.PHONY: test-aarch64
test-aarch64:  ## Test the NEON kernels under qemu-user, against the bits of this machine
	@{ command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64; } >/dev/null || { echo \
	  "needs aarch64-linux-gnu-gcc and qemu-aarch64 (Debian: gcc-aarch64-linux-gnu" \
	  "libc6-dev-arm64-cross qemu-user)"; exit 1; }
	$(call c_tests,test_kernels_aarch64,aarch64-linux-gnu-gcc $(C_FLAGS) -static)
	qemu-aarch64 build/test_kernels_aarch64 --expect $(BITS)

# Build a variant in a copy of the sources, $(1), with the environment $(2), and optimized at $(3).
define variant
rm -rf build/$(1)
mkdir -p build/$(1)
cp -r $(VARIANT_FILES) build/$(1)
find build/$(1) -name '*.so' -delete
sed -i 's/^-O3$$/$(3)/' build/$(1)/src/flags.txt
cd build/$(1) && $(2) $(BIN)/python setup.py --quiet build_ext --inplace
endef

# Run Python with that variant, also in the processes that the tests start, and not with what
# lies in the current folder.
from = PYTHONSAFEPATH=1 PYTHONPATH=$(abspath build/$(1))

# The tests that are not repeated on other builds, and why. A new file is repeated.
# - accuracy, properties: many numbers, by calls that other files make, too;
# - benchmarks, compare, compiled, dashboard, derivation, docs, documents, example, packaging,
#   reference, release: they test no build, or builds of their own;
# - streaming: large arrays, ten minutes under the sanitizers, where the C tests store past the
#   caches at every offset;
# - every combination of options, any number of threads, extreme weights: minutes, for code that the
#   rest covers;
# - stack: frames are what an optimized build makes them;
# - memory, under the sanitizers: it counts malloc, and AddressSanitizer has a malloc of its own;
# - memory_error, scratch, under the sanitizers: there a malloc that should return NULL ends the
#   process.
NOT_REPEATED := accuracy properties benchmarks compare compiled dashboard derivation docs \
  documents example packaging reference release stack streaming
TOO_LONG := every_combination or any_number_of_threads or extreme_weights
without = tests $(patsubst %,--ignore=tests/test_%.py,$(NOT_REPEATED) $(1))
REPEATED_TESTS := $(without) -k "not ($(TOO_LONG))"
SANITIZED_TESTS = $(or $(PART),$(call without,memory)) \
  -k "not ($(TOO_LONG) or memory_error or scratch)"

SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -g1

# Run a command with that build, $(1).
define under_sanitizers
ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc $(call from,sanitize) \
  LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so) \
  $$($(CC) -print-file-name=libstdc++.so)" $(1)
endef

.PHONY: test-debug
test-debug: $(VENV)/.tools  ## Run most tests on a build with assertions; PART="tests/..." for fewer
	$(call variant,debug,CYSOFTMAX_DEBUG=1,-O1)
	$(call from,debug) $(PYTEST) $(or $(PART),$(REPEATED_TESTS))

.PHONY: test-serial
test-serial: $(VENV)/.tools  ## Run most tests on a build without OpenMP; PART, too
	$(call variant,serial,CYSOFTMAX_OPENMP=0,-O3)
	$(call from,serial) $(PYTEST) $(or $(PART),$(REPEATED_TESTS))

.PHONY: test-sanitize
test-sanitize: $(VENV)/.tools  ## Run most tests under AddressSanitizer and UBSan, with assertions; PART, too
	$(call c_tests,test_kernels_sanitized,$(CC) $(C_FLAGS) -O1 $(SANITIZE))
	build/test_kernels_sanitized --expect $(BITS)
	$(call variant,sanitize,CYSOFTMAX_DEBUG=1 CC="$(CC) $(SANITIZE)",-O1)
	$(call under_sanitizers,$(PYTEST) -p no:cacheprovider $(SANITIZED_TESTS))

# ---------------------------------------------------------------- fuzzing and data races

# Both need clang, its sanitizers, and LLVM's OpenMP: ThreadSanitizer does not know how GCC's waits,
# and reports each of its barriers as a race. LLVM's tells it, by the library Archer.
CLANG := $(firstword $(foreach v,-22 -21 -20 -19 -18 -17 -16 -15 -14,$(shell command -v clang$v)) \
  $(shell command -v clang))
CLANG_VERSION := 19
MINUTES := 10
# Where clang has a library.
clang_file = $$($(CLANG) -print-file-name=$(1))

.PHONY: hardening-packages
hardening-packages:  ## Install what `make fuzz` and `make test-tsan` need (Debian, Ubuntu; by sudo)
	sudo apt-get install --quiet --yes clang-$(CLANG_VERSION) libclang-rt-$(CLANG_VERSION)-dev \
	  libomp-$(CLANG_VERSION)-dev llvm-$(CLANG_VERSION)

.PHONY: has-clang
has-clang:
	@[ -n "$(CLANG)" ] || { echo "needs clang, its sanitizers and its OpenMP: for Debian, see" \
	  "the packages of 'make hardening-packages'"; exit 1; }

# The build that test-sanitize makes, too.
.PHONY: fuzz-functions
fuzz-functions: $(VENV)/.tools  ## Call every function with arrays of any bits, under sanitizers; MINUTES=10
	$(call variant,sanitize,CYSOFTMAX_DEBUG=1 CC="$(CC) $(SANITIZE)",-O1)
	$(call under_sanitizers,$(BIN)/python tests/fuzz/functions.py $(MINUTES))

FUZZER := build/fuzz_kernels
$(FUZZER): tests/fuzz/kernels.c tests/kernels/harness.c $(wildcard src/*) | has-clang
	mkdir -p build/fuzz
	$(CLANG) $(C_FLAGS) -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -g1 \
	  tests/fuzz/kernels.c tests/kernels/harness.c src/*.c -lm -o $@

.PHONY: fuzz-kernels
fuzz-kernels: $(FUZZER)  ## Call the C kernels with arrays of any bits, by libFuzzer; MINUTES=10
	$(FUZZER) -max_total_time=$$(($(MINUTES) * 60)) -max_len=8192 -print_final_stats=1 \
	  -verbosity=0 -artifact_prefix=build/fuzz/ build/fuzz

.PHONY: fuzz
fuzz: fuzz-kernels fuzz-functions  ## Both of these

TSAN_TESTS := tests/test_threads.py tests/test_long_rows.py tests/test_total_weights.py
# pytest and NumPy are not instrumented: only accesses of our code count. Processes that tests start
# are left to the other builds: LLVM's OpenMP as Debian builds it ends them if OMP_NUM_THREADS is odd.
TSAN := OMP_TOOL_LIBRARIES=$(call clang_file,libarcher.so) \
  TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1 history_size=4"

.PHONY: test-tsan
test-tsan: has-clang $(VENV)/.tools  ## Look for data races in the parallel loops; MINUTES=10 beside the tests
	mkdir -p build
	$(CLANG) -O1 -g1 -fopenmp -fsanitize=thread tests/fuzz/races.c -o build/races
	$(TSAN) build/races
	! $(TSAN) build/races race 2>build/races.txt
	grep -q 'WARNING: ThreadSanitizer: data race' build/races.txt
	$(call variant,tsan,CC="$(CLANG) -fsanitize=thread -shared-libsan -g1",-O1)
	$(call from,tsan) LD_PRELOAD=$(call clang_file,libclang_rt.tsan-$$(uname -m).so) $(TSAN) \
	  $(BIN)/pytest -p no:cacheprovider $(or $(PART),$(TSAN_TESTS)) \
	  -k "not (fork or process or omp_num_threads)"
	$(call from,tsan) LD_PRELOAD=$(call clang_file,libclang_rt.tsan-$$(uname -m).so) $(TSAN) \
	  $(BIN)/python tests/fuzz/functions.py $(MINUTES) threads

# ---------------------------------------------------------------- benchmarks: docs/benchmarking.md

ASV := PATH="$(BIN):$$PATH" $(BIN)/asv
# What `make bench` runs, and the front page shows: the ratios, and the rest at one size.
QUICK := ratios.LossAndGradient|accuracy.*, 1000\)|bits.*, (10|20000)\)|speed.*float32.*8192000\)
QUICK := $(QUICK)|overhead.Call.*(softmax|_with_grad)', 10\)|overhead.Import|track_scratch.*_grad
# What `make dashboard` runs for the commits before the present one: a minute each.
HISTORY := ratios.LossAndGradient.*float32.*(327680|8192000|32768000)\)|accuracy.*float32', 1000\)
HISTORY := $(HISTORY)|bits.*, 1000\)|speed.(LossAndGradient|Softmax).time.*float32.*8192000\)
COMMITS := 6
BENCH := speed.*float32.*, (327680|8192000)\)
ROUNDS := 6
FACTOR := 1.3
PORT := 8000

$(VENV)/.bench: $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --group bench --group browser
	touch $@

.PHONY: bench
bench: $(VENV)/.bench  ## Measure the present commit in four minutes and print a summary
	$(ASV) run --bench "$(QUICK)" HEAD^!
	$(BIN)/python -m benchmarks.dashboard.summary

.PHONY: bench-all
bench-all: $(VENV)/.bench  ## Measure everything about the present commit (20 minutes)
	$(ASV) run HEAD^!

.PHONY: bench-compare
bench-compare: $(VENV)/.bench  ## Compare with BASE=commit, in turns; fails if the present one is slower
	$(ASV) continuous --interleave-rounds --split --factor $(FACTOR) --attribute rounds=$(ROUNDS) \
	  --bench "$(BENCH)" $(or $(BASE),$(error say BASE=commit)) HEAD

# One thread for ours and for NumPy's BLAS. With OPTIONS="--peers ...", in the venv of the peers:
# $(BIN) and $(PEERS) have the same library, built in place.
PRICE_PYTHON = $(if $(findstring --peers,$(OPTIONS)),$(PEERS),$(abspath $(VENV)))/bin/python

.PHONY: price
price: build $(VENV)/.bench $(if $(findstring --peers,$(OPTIONS)),compare-setup)  ## Print what options cost (3 minutes); OPTIONS="--peers --write docs/performance.md"
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=$(CURDIR) $(PRICE_PYTHON) \
	  -m benchmarks.price $(OPTIONS)

.PHONY: time-rows
time-rows: build  ## Print what a call of a function of one row costs beyond its kernels
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR) $(BIN)/python -m benchmarks.row_calls

.PHONY: dashboard
dashboard: dashboard-site  ## Measure what is missing of the last commits; serve the results here
	@echo "the dashboard: http://127.0.0.1:$(PORT)/ (Ctrl-C ends it)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory .asv/html $(PORT) >/dev/null 2>&1

# A commit that does not build, or fails a check, is no reason not to show the others.
.PHONY: dashboard-site
dashboard-site: $(VENV)/.bench
	-$(ASV) run --skip-existing --bench "$(QUICK)" HEAD^!
	-git log -$(COMMITS) --format=%H -- cysoftmax src setup.py | \
	  $(ASV) run --skip-existing --bench "$(HISTORY)" HASHFILE:-
	$(ASV) publish --no-pull

# ---------------------------------------------------------------- documentation

# Sphinx wants versions of its own: a venv of its own. The library is the one that is built in place.
DOCS := $(abspath $(VENV))/docs
SITE := build/docs/html

$(DOCS)/.tools: pyproject.toml $(VENV)/.tools
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --upgrade pip
	$(DOCS)/bin/python -m pip install --quiet --group docs
	touch $@

.PHONY: docs
docs: build $(DOCS)/.tools  ## Make the documentation site, build/docs/html; a warning is an error
	rm -rf $(SITE) docs/generated
	PYTHONPATH=$(CURDIR) $(DOCS)/bin/python -m sphinx -b html -d build/docs/doctrees -j 2 -E -q \
	  -W --keep-going -n docs $(SITE)

.PHONY: docs-serve
docs-serve: docs  ## Make the documentation site, and serve it here
	@echo "the documentation: http://127.0.0.1:$(PORT)/ (Ctrl-C ends it)"
	@$(DOCS)/bin/python -m http.server --bind 127.0.0.1 --directory $(SITE) $(PORT) >/dev/null 2>&1

.PHONY: test-docs
test-docs: docs  ## Make the documentation site, and open each page of it in Chromium
	PYTHONPATH=$(CURDIR) $(DOCS)/bin/pytest -m site tests/test_docs.py

# ---------------------------------------------------------------- other libraries

COMPARE := PYTHONPATH=$(CURDIR) $(PEERS)/bin/python -m benchmarks.compare

.PHONY: compare-setup
compare-setup: build $(PEERS)/.compare  ## Install the libraries that `make compare` compares with

.PHONY: compare
compare: compare-setup  ## Compare with other libraries, draw it (15 minutes); PART=softmax prints a part
	$(COMPARE).run $(if $(PART),--tasks $(PART),--json docs/compare.json) $(OPTIONS)
	$(if $(PART),,$(COMPARE).plot docs/compare.json docs)

.PHONY: compare-draw
compare-draw: compare-setup  ## Draw the results of the last `make compare` anew
	$(COMPARE).plot docs/compare.json docs

.PHONY: compare-quick
compare-quick: compare-setup  ## The same for loss and gradient, hastily; OPTIONS="--shapes 1x10"
	$(COMPARE).run --quick $(OPTIONS)

# ---------------------------------------------------------------- releases: RELEASING.md

RELEASE := $(abspath $(VENV))/release

$(RELEASE)/.tools: pyproject.toml $(VENV)/.tools
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --upgrade pip
	$(RELEASE)/bin/python -m pip install --quiet --group wheels
	touch $@

$(VENV)/.workflows: $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --group workflows
	touch $@

.PHONY: sdist
sdist: $(RELEASE)/.tools  ## Build the sdist into dist/, and check it
	PATH="$(RELEASE)/bin:$$PATH" $(RELEASE)/bin/python tools/wheels.py dist --only-sdist

.PHONY: wheels
wheels: $(RELEASE)/.tools  ## Build sdist and wheels into dist/, check them, test them (20 minutes); OPTIONS="--pythons 3.11"
	PATH="$(RELEASE)/bin:$$PATH" $(RELEASE)/bin/python tools/wheels.py dist $(OPTIONS)

.PHONY: check-release
check-release:  ## Say what is missing before a release; TAG=v1.2.3 compares it with the version
	$(PYTHON) tools/check_release.py "$$TAG"

.PHONY: lint-workflows
lint-workflows: $(VENV)/.workflows  ## Check workflows, issue forms, CITATION.cff and the list of wheels
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
	  .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config \
	  .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/zizmor --offline --quiet --persona pedantic .github
	for os in linux macos windows; do $(BIN)/python -m cibuildwheel --platform $$os \
	  --archs all --print-build-identifiers . || exit 1; done

.PHONY: ci
ci:  ## Run what must pass before a change is merged (half an hour, 3 GB)
	.ci/run

.PHONY: lint
lint: build  ## Check style, types and stubs; change nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint cysoftmax
	@# Directives of a .pyx do not reach a .pxd: one without them would divide as Python does.
	! grep -n '__Pyx_WriteUnraisable\|ZeroDivisionError' build/cython/cysoftmax/_core.c
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	$(BIN)/python -m mypy.stubtest cysoftmax --ignore-missing-stub --ignore-unused-allowlist \
	  --allowlist tests/not_imported.txt
	$(BIN)/python src/coefficients.py | diff - src/coefficients.h

.PHONY: format
format: $(VENV)/.tools  ## Bring all sources into the one layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

.PHONY: coefficients
coefficients: $(VENV)/.tools  ## Compute the constants of exp and log1p anew
	$(BIN)/python src/coefficients.py --write

.PHONY: clean
clean:  ## Remove everything that was built or installed here
	rm -rf $(VENV) build out dist docs/generated *.egg-info .pytest_cache .mypy_cache .ruff_cache
	rm -rf .asv/env .asv/html .asv/npm  # but not the results
	find cysoftmax -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
