"""Benchmarks: two things in one run, in turns."""
