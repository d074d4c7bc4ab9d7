"""Preparing data on the nodes of a Ray cluster."""
