"""Training objectives: what is hidden from the model and what it is asked."""
