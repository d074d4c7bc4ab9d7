"""Held-out evaluation: the loss on documents that were never trained on, and baselines for it.

held_out      the rows that a model is evaluated on, and their file
held_out_rows make these rows from documents
scores        the loss of a model on such rows: nats per token, bits per byte, accuracy
baselines     what simple counts over the training rows reach on the same rows
run_scores    a run on its held-out documents or on any text: the work of `cram.evaluate`
"""
