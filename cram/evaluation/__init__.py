"""Held-out evaluation: the loss on documents that were never trained on, and baselines for it.

The files, in the order in which they are used (`cram.hub.run_scores` does the work of `cram.evaluate`):

    halves         the half of the held-out text that each document belongs to
    held_out_rows  make the rows that a model is evaluated on
    held_out       these rows, and their file
    scores         the loss of a model on them: nats per token, bits per byte, accuracy
    by_position    the loss of a causal model by the length of the context
    baselines      the loss of simple counts over the training rows
"""
