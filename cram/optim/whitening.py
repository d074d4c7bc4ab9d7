"""Whitening: a matrix with the singular values of an update brought near one, by products or by a triangular solve."""

import torch
from torch import Tensor

from cram.config.optimizer import MuonConfig
from cram.machine.device import is_readable, pick_precision

# a, b, c of x -> a x + b x^3 + c x^5. The curve is steep at zero, so that few steps suffice; in exchange the values end
# near one and not at one.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_TINY = torch.finfo(torch.float32).tiny
# Where a norm lies between this and its inverse, squares of elements that count are numbers of fp32.
_SAFE = 1e-12


def product_dtype(device: torch.device, dtype: torch.dtype, products: str = "auto") -> torch.dtype:
    """The dtype of the matrix products for weights of this dtype: bf16 for fp32 weights on a device with fast bf16.

    Other weights keep their own dtype, and so do all with `products` fp32. fp16 is never used, because its range is
    too small for the first products.
    """
    fast = products == "auto" and dtype == torch.float32 and pick_precision("auto", device) == torch.bfloat16
    return torch.bfloat16 if fast else dtype


def whiten(matrices: Tensor, config: MuonConfig, steps: int, dtype: torch.dtype) -> Tensor:
    """Whiten matrices of one shape as `optimizer.muon.whitening` says.

    Args:
        matrices: (n, rows, columns), divided by their norms; in `dtype` for Newton-Schulz.
        config: the keys `optimizer.muon.*`.
        steps: Newton-Schulz iterations; MUD has its own number of passes.
        dtype: dtype of the products.

    Returns:
        The whitened matrices, of the same shape, in `dtype` or that of `matrices`.
    """
    if config.whitening == "mud":
        return decorrelate(matrices, config.mud_passes, dtype)
    return newton_schulz(matrices, steps)


def orthogonalise(matrices: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Bring the singular values of each matrix near one and keep its singular vectors.

    Newton-Schulz iteration: each matrix is divided by its Frobenius norm, then x -> a x + b x^3 + c x^5 is applied
    `steps` times to its singular values by matrix products. Five steps bring every singular value above 0.002 of the
    norm between 0.68 and 1.21. A zero matrix stays zero.

    Args:
        matrices: (n, rows, columns); all n go through one chain of batched products, on the shorter side.
        steps: number of iterations.
        dtype: dtype of the products and of the result.

    Returns:
        The orthogonalised matrices, of the same shape.

    Source: K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; changed: batched.
    """
    return newton_schulz(divide_by_norm_(matrices.clone()).to(dtype), steps)


def newton_schulz(x: Tensor, steps: int) -> Tensor:
    """The iteration of `orthogonalise`, on matrices (n, rows, columns) that are divided by their norms."""
    a, b, c = _COEFFICIENTS
    tall = x.shape[1] > x.shape[2]
    for _ in range(steps):
        gram = x.mT @ x if tall else x @ x.mT
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        x = x @ factor if tall else factor @ x
    return x


def decorrelate(matrices: Tensor, passes: int, dtype: torch.dtype) -> Tensor:
    """Make the rows of each matrix, or the columns where they are fewer, of length one and nearly orthogonal.

    A pass of MUD scales the rows to length one, solves T y = x for the lower triangle T of their Gram matrix, which
    takes from each row what it shares with those above it, and scales the rows again. T has a diagonal of ones, and
    its inverse is at most 2 in norm, so that products in bf16 are precise enough. A zero row stays zero.

    Args:
        matrices: (n, rows, columns), all whitened together on the shorter side.
        passes: number of passes.
        dtype: dtype of the Gram matrix' product. The triangular solve keeps that of `matrices`.

    Returns:
        The whitened matrices, of the same shape and dtype as `matrices`. Rows of length one on the shorter side give
        them the Frobenius norm of an orthogonal matrix, so that learning rates are comparable.

    Source: arXiv:2603.17970, as described there and in public notes; changed: the scale of the result is that of
    `Muon`, and the diagonal of the Gram matrix is taken as exactly one.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices / _largest(matrices)
    x = _unit_rows(x.mT if tall else x)
    for _ in range(passes):
        rows = x.to(dtype)
        gram = (rows @ rows.mT).to(x.dtype)
        x = _unit_rows(torch.linalg.solve_triangular(gram, x, upper=False, unitriangular=True))
    return x.mT if tall else x


def divide_by_norm_(matrices: Tensor) -> Tensor:
    """Divide each matrix, (n, rows, columns), by its Frobenius norm, in place; a zero matrix stays zero."""
    norms: Tensor = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    if is_readable(matrices) and bool(((norms > _SAFE) & (norms < 1.0 / _SAFE)).all()):
        return matrices.div_(norms)
    matrices.div_(_largest(matrices))
    norms = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    return matrices.div_(norms.clamp(min=_TINY))


def _unit_rows(matrices: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(matrices, dim=2, keepdim=True)
    return matrices / lengths.clamp(min=_TINY)


def _largest(matrices: Tensor) -> Tensor:
    """The largest magnitude in each matrix, by which to divide: squares of small elements would vanish otherwise."""
    return matrices.abs().amax(dim=(1, 2), keepdim=True).clamp(min=_TINY)
