"""The kernels that compute attention: one file each, chosen by `model.attention`."""
