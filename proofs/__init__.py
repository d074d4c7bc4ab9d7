"""Long checks that are no part of the tests, run as `python -m proofs.NAME`."""

import cram  # noqa: F401 (a clone that is not installed finds its kernels by it)
