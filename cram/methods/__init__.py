"""Techniques of the literature that work beside the optimizer."""
