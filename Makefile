# Each target makes $(VENV) and installs what it needs, once. PYTHON=python3.12 chooses another Python (the
# environment is made anew); TORCH=no leaves torch out, and the tests that need it are skipped; TESTS names some of them.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= yes
TESTS ?= tests

BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
BASE := $(VENV)/python-$(VERSION)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

ifeq ($(TORCH),yes)
TESTED := $(VENV)/installed-test $(VENV)/installed-torch
else
TESTED := $(VENV)/installed-test
endif

.PHONY: demo test test-slow test-all lint docs bench bench-real clean

demo: $(VENV)/installed
	$(BIN)/python -m emsam_jax.demo --out=runs/demo

# `test` takes minutes and holds each claim and each command once; `test-slow` is what it leaves out: kills and full
# disks in all places, benchmarks, the programs of the documents, real data, every variant. .ci/run runs a part of those.
# A worker that dies ends the run: started anew, pytest-xdist has hung.
PYTEST = $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder \
	--max-worker-restart=0

test: $(TESTED)
	$(PYTEST) -m 'not slow' $(TESTS)

test-slow: $(TESTED)
	$(PYTEST) -m slow $(TESTS)

test-all: $(TESTED) .venv-readers/installed
	$(PYTEST) $(TESTS)

lint: $(TESTED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The guide, as pages in site/. Its search needs a server: python -m http.server --directory=site.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(TESTED) .venv-peers/installed
	$(PIP) --editable '.[bench]'
	$(BIN)/python benchmarks/parity.py
	$(BIN)/python benchmarks/parity.py --bfloat16
	$(BIN)/python benchmarks/encoder.py
	$(BIN)/python benchmarks/convert.py
	$(BIN)/python benchmarks/segmentation.py
	$(BIN)/python benchmarks/scores.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/train_step.py --cases=frozen,finetuned --notime
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/predict.py --cases=large --window=16,64,64 --volume=48,32,32 --rounds=1
	$(BIN)/python benchmarks/blockwise.py
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/worker_memory.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/objects.py
	$(BIN)/python benchmarks/where_to_look.py
	test -z '$(EMSAM_DATA)' || $(BIN)/python benchmarks/choosing.py
	test -z '$(EMSAM_DATA)' || $(BIN)/python benchmarks/pixel_classifier.py

# A day: trains and reports on FIB-25 in the folder that EMSAM_DATA names; each line resumes, in runs/.
bench-real: $(TESTED)
	$(BIN)/python benchmarks/pixel_classifier.py
	$(BIN)/python benchmarks/real_tissue.py --seeds=3
	$(BIN)/python benchmarks/fine_tuning.py --seeds=3
	$(BIN)/python benchmarks/no_labels.py --seeds=3
	$(BIN)/python benchmarks/few_labels.py --seeds=3
	$(BIN)/python benchmarks/transfer.py --seeds=3

clean:
	rm -rf $(VENV) runs

$(BASE):
	@test -n '$(VERSION)' || { echo 'No Python at PYTHON=$(PYTHON): give one that is 3.11 or newer.'; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(VENV)/installed: $(BASE) pyproject.toml constraints.txt
	@echo 'Installing into $(VENV), once.'
	$(PIP) --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) --editable '.[docs]'
	touch $@

# sam2 comes as source: its own build environment would fetch a second torch, so it is built in this one, and its
# CUDA extension, which the image encoder does not use, is left out.
$(VENV)/installed-torch: $(VENV)/installed
	$(PIP) torch setuptools wheel
	SAM2_BUILD_CUDA=0 $(PIP) --no-build-isolation sam2
	$(PIP) --editable '.[convert]'
	touch $@

# Other tools' readers, by which exports are read back; webknossos is AGPL and stays out of the package's environment.
.venv-readers/installed:
	$(PYTHON) -m venv --clear .venv-readers
	.venv-readers/bin/python -m pip install --quiet --disable-pip-version-check \
		webknossos==4.3.3 napari==0.6.6 napari-ome-zarr==0.10.0
	touch $@

# The peers that need other versions than ours of what both use: gunpowder wants zarr 2.
.venv-peers/installed:
	$(PYTHON) -m venv --clear .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check gunpowder==1.4.4 zarr==2.18.7
	touch $@
