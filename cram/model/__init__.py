"""The models: layers, attention, the pre-norm transformer, and one file for each `model.kind`."""
