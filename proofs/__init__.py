"""Long checks that are not part of the tests. Each is a command, `python -m proofs.NAME`, with `key=value` words."""

import cram  # noqa: F401 (in a clone that is not installed, this makes `cram_kernels` importable)
