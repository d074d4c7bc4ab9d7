"""Held-out loss, and the baselines beside it."""
