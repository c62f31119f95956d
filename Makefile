# Two commands do everything on a machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test unit check regen docs dist try-wheel perf-analyzer bench-hop bench-wire bench-monitor \
	bench-profile bench-formats bench-noise bench-planner bench-switches bench-soak bench-overload bench-plane \
	bench-batches bench-prediction bench-grid bench-overhead bench-super-resolution bench-sharing clean

demo: $(STAMP)
	$(BIN)/tritier demo --output demo_output

test: $(STAMP)
	$(BIN)/python -m pytest

# Without real servers and whole commands, with a tenth of the drawn examples: under a minute, on all cores.
unit: $(STAMP)
	TRITIER_QUICK_TESTS=1 $(BIN)/python -m pytest -n auto --dist worksteal tests/unit tests/property tests/golden

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Rewrites golden files and JSON schemas; review the diff.
regen: $(STAMP)
	$(BIN)/python -m tests.golden.regen

# The pages of docs/ as a site, into build/docs/index.html; a warning is an error.
docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs build/docs

# Wheel and sdist into dist/: the same commit gives the same bytes.
dist: $(STAMP)
	$(BIN)/python scripts/build_dist.py dist

# The wheel in a new virtual environment (one to two minutes): installs, and runs the demo.
try-wheel: dist
	$(BIN)/python scripts/try_wheel.py dist/tritier-*.whl

# The real perf_analyzer binary, into .tools/perf_analyzer/.
perf-analyzer: $(STAMP)
	$(BIN)/python scripts/fetch_perf_analyzer.py .tools/perf_analyzer

# Time that a hop between two servers adds, beside a bare upload of the same bytes.
bench-hop: $(STAMP)
	$(BIN)/python -m benchmarks.hop_overhead

# Bytes, noise and time of a trained text detector cut in two, per wire codec.
bench-wire: $(STAMP)
	$(BIN)/python -m benchmarks.wire_codecs ppocr

# Links that are measured, beside what the lab emulates.
bench-monitor: $(STAMP)
	$(BIN)/python -m benchmarks.monitor_accuracy

# Components that a timing profile predicts, beside what they take, by both methods.
bench-profile: $(STAMP)
	$(BIN)/python -m benchmarks.profile_accuracy ppocr

# Which int8 format gains here, and its noise, for a trained text detector.
bench-formats: $(STAMP)
	$(BIN)/python -m benchmarks.int8_formats ppocr

# How well the noise of a trained text detector's layers is predicted.
bench-noise: $(STAMP)
	$(BIN)/python -m benchmarks.noise_accuracy held-out ppocr

# Plans of recorded cases beside the published ones, and how long planning takes.
bench-planner: $(STAMP)
	$(BIN)/python -m benchmarks.planner_published
	$(BIN)/python -m benchmarks.planner_scaling

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python >= 3.11 is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (one to two minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[embedded,dev]'
	touch $@

# Plans that change under load: no request may fail.
bench-switches: $(STAMP)
	$(BIN)/python -m benchmarks.switches

# Ten minutes at 70 % of the sustainable load: memory, descriptors and shared memory stay flat.
bench-soak: $(STAMP)
	$(BIN)/python -m benchmarks.soak

# A minute of twice the sustainable load.
bench-overload: $(STAMP)
	$(BIN)/python -m benchmarks.overload

# What router, TLS and traces cost on a small model.
bench-plane: $(STAMP)
	$(BIN)/python -m benchmarks.plane_overhead

# The table of batch sizing: what the super-resolution network takes over mini-batches on one core.
bench-batches: $(STAMP)
	$(BIN)/python -m benchmarks.batch_table -o examples/costs/espcn_x3_batches.json

# Latency of over 30 plans, predicted before it is measured.
bench-prediction: $(STAMP)
	$(BIN)/python -m benchmarks.prediction -o results/prediction --report docs/reports/predictions.md

# The plan against every baseline, over 40 cells of uplink and slow-down.
bench-grid: $(STAMP)
	$(BIN)/python -m benchmarks.baseline_grid -o results/grid --report docs/reports/grid.md

# What serving costs beside computing: entry, split, pipeline.
bench-overhead: $(STAMP)
	$(BIN)/python -m benchmarks.serving_overhead -o results/serving_overhead --report docs/reports/serving.md

# The super-resolution network under load, whole and split; fills its report.
bench-super-resolution: $(STAMP)
	$(BIN)/python -m benchmarks.super_resolution_sweep -o results/super_resolution \
		--report docs/reports/super_resolution.md

# Sharers of one core: latencies predicted by queueing, beside those of Triton's rate limiter.
bench-sharing: $(STAMP)
	$(BIN)/python -m benchmarks.sharing_queue

clean:
	rm -rf $(VENV) .tools build dist demo_output results .mypy_cache .ruff_cache .pytest_cache .hypothesis
