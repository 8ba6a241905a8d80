# make run      one stacking trial in real time at 20 Hz: creates .venv and installs what running needs (not torch)
# make test     every test; installs the training and development packages first
# make check    ruff, its formatter, mypy --strict, and the check of the English
# make structure  folders, imports and two walks through the package; a broken rule of CONTRIBUTING.md fails
# make bench    the latency profile of the shipped bundle, paced at 20 Hz for a minute; then the same ticks through the peers;
#               fails at the end if the budget does not hold or a peer fails
# make faults   every fault injected and timed beside a computing witness; "Error 3": inconclusive, because this machine pauses
# make build    sdist → wheel → installed in an empty environment → smoke test
# make docs     the site in site/, API reference included; a broken link fails
# make clean    remove what the targets made, .venv included

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Given to pip this way so that the packages that build gatort itself are pinned too.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
RUN_ARGS ?= --video runs/stack.mp4 --json runs/stack.json
TEST_ARGS ?=

.PHONY: run test check structure bench faults build docs clean

run: .venv/.installed-run
	mkdir -p runs
	$(BIN)/gatort run $(RUN_ARGS)

test: .venv/.installed-dev .venv-franka-sim/.installed .venv-lerobot/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TEST_ARGS)

check: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict -p gatort -p checks
	$(BIN)/python -m checks.english

structure: .venv/.installed-run
	$(BIN)/python -m checks.structure

bench: .venv/.installed-dev .venv-peers/.installed
	mkdir -p runs
	@profile=0; peers=0; \
	$(BIN)/gatort profile --ticks 1200 --json runs/profile.json --plot runs/profile.png || profile=$$?; \
	$(BIN)/python benchmarks/peers --peers-python .venv-peers/bin/python || peers=$$?; \
	test $$profile -eq 0 || echo "gatort profile: the budget does not hold on this machine (status $$profile)"; \
	test $$peers -eq 0 || echo "benchmarks/peers: failed (status $$peers)"; \
	test $$profile -eq 0 && test $$peers -eq 0

faults: .venv/.installed-dev .venv-franka-sim/.installed
	mkdir -p runs
	$(BIN)/gatort faults --json runs/faults.json
	$(BIN)/gatort faults --robot franka --json runs/franka_faults.json

build: .venv/.installed-dev
	rm -rf build dist
	$(BIN)/python -m build --outdir dist
	$(PYTHON) -m venv build/empty
	build/empty/bin/pip install --quiet dist/*.whl
	cd build && empty/bin/python ../.ci/smoke.py
	cd build && empty/bin/gatort --help > /dev/null
	cd build && empty/bin/gatort doctor

docs: .venv/.installed-docs
	$(BIN)/python docs/list_modules.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .venv-franka-sim .venv-lerobot .venv-peers build dist runs site src/gatort.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# One stamp per set of packages, so that each is installed once and again only when the pins change.
.venv/.installed-run: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[sim,trials]'
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[sim,pybullet,franka,cameras,trials,cluster,convert,data,train,events,tensorrt,console,testing,dev]'
	touch $@ .venv/.installed-run

.venv/.installed-docs: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

# The peers pin what they need themselves, and gatort's pins are not theirs.
.venv-peers/.installed: benchmarks/peers/requirements.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	PIP_CONSTRAINT= .venv-peers/bin/pip install --quiet --requirement $<
	touch $@

# franka-sim pins NumPy and MuJoCo below gatort's. Tests that need it say so where it is absent.
.venv-franka-sim/.installed: faults/franka/requirements.txt | .venv/bin/python
	test -x .venv-franka-sim/bin/python || $(PYTHON) -m venv .venv-franka-sim
	PIP_CONSTRAINT= .venv-franka-sim/bin/pip install --quiet --requirement $< && touch $@ || \
	    { rm -rf .venv-franka-sim; echo "franka-sim cannot be installed: its tests are skipped"; }

# lerobot pins other versions of almost everything. Its loader runs with .venv's PyTorch, which pip need not fetch again.
.venv-lerobot/.installed: tests/datasets/lerobot/requirements.txt | .venv/.installed-dev
	test -x .venv-lerobot/bin/python || $(PYTHON) -m venv .venv-lerobot
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	    "$$(.venv-lerobot/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/main.pth"
	PIP_CONSTRAINT= .venv-lerobot/bin/pip install --quiet --no-deps --requirement $< && touch $@ || \
	    { rm -rf .venv-lerobot; echo "lerobot's loader cannot be installed: its test is skipped"; }

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("gatort needs Python 3.11 or newer, found " + sys.version)'
	@$(PYTHON) -c 'import ensurepip' || { echo "python3 has no ensurepip: on Debian, apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv .venv
