"""Training objectives: how rows become batches with labels, and batches become a loss."""
