"""Fused kernels for transformers, drop-in for `torch.nn.functional` where the arguments are the same.

The package imports torch and triton only, never cram. Each op has one file, in one order: formula and source,
reference, kernels, launchers, op with fake and autograd, public function. Where a file would get long, its kernels and
launchers are in `_NAME_kernels.py`.
"""

from cram_kernels.activations import geglu, swiglu
from cram_kernels.cross_entropy import cross_entropy
from cram_kernels.layer_norm import layer_norm
from cram_kernels.linear_cross_entropy import linear_cross_entropy
from cram_kernels.rope import rope
from cram_kernels.softmax import softmax

__all__ = ["cross_entropy", "geglu", "layer_norm", "linear_cross_entropy", "rope", "softmax", "swiglu"]
