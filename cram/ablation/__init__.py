"""Ablations: arms trained at equal budget, and their comparison. The work of `cram.ablate`.

The files:

    table      the content of a yaml file in recipes/ablations/: arms, each made by `key=value` words
    plan       the runs of a table: each arm with each seed
    runner     train the runs that are missing
    outcomes   the figures of each arm, beside those of the baseline
    printing   the comparison on the terminal and as files
"""
