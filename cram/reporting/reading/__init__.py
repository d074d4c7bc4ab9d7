"""Readers of what a report is made from: run folders, tables of arms, shard folders, GLUE results and plans.

They read files alone, and import no torch, so that a report is made in seconds.
"""
