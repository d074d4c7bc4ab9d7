# make demo: train a small BERT from scratch in about two minutes.   make test: everything CI checks.
# make proofs: kills, signals, full disks, damaged files, odd inputs, stopped processes, twins of held-out text,
# runs by several ranks beside those of one, kernels as compiled, and their count, the first pass beside a plain one,
# the table of words beside the library, pages of reports in a browser (Chromium).
# Both set themselves up. An existing interpreter or environment: make PYTHON=python3.12 VENV=/path/to/venv
PYTHON ?= python3
VENV ?= .venv
STAMP := $(VENV)/.cram-installed
RUN := $(VENV)/bin/python

.PHONY: demo test proofs
demo: $(STAMP)
	$(RUN) -m cram.train recipe=bert_demo

test: $(STAMP)
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(VENV)/bin/codespell
	$(RUN) -m mypy
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile
	OMP_NUM_THREADS=1 CRAM_KERNELS=reference $(RUN) -m pytest -n 2 tests/kernels
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 CRAM_KERNELS=triton $(RUN) -m pytest -n 2 tests/kernels

# Long checks that are no part of CI: two hours on two cores.
proofs: $(STAMP)
	$(RUN) -m proofs.unseen
	$(RUN) -m proofs.freeze
	$(RUN) -m proofs.columns
	$(RUN) -m proofs.ends
	$(RUN) -m proofs.cluster
	$(RUN) -m proofs.signals
	$(RUN) -m proofs.disks
	$(RUN) -m proofs.ranks
	$(RUN) -m proofs.rank_kills
	$(RUN) -m proofs.damage
	$(RUN) -m proofs.fuzz
	$(RUN) -m proofs.words
	$(RUN) -m proofs.report
	$(RUN) -m proofs.ptx
	$(RUN) -m bench.count_kernels dtypes=[bf16,fp32] providers=[ours]

$(STAMP): pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $(STAMP)
