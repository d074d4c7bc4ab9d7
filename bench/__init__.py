"""Benchmarks, run as `python -m bench.NAME`: two things in one run, in turns."""

import cram  # noqa: F401 (a clone that is not installed finds its kernels by it)
