"""The small parts of a block: the norms and the gated MLP."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cram_kernels as ck


class LayerNorm(nn.LayerNorm):
    """Layer normalisation of the last dimension with a gain and, if asked for, a bias; keeps the input's dtype.

    It derives from `torch.nn.LayerNorm`, so that its type says what its parameters are.

    Args:
        width: size of the last dimension.
        eps: added to the variance.
        bias: whether there is a bias.
    """

    def __init__(self, width: int, eps: float, bias: bool = False) -> None:
        super().__init__(width, eps=eps, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> the same, normalised."""
        return ck.layer_norm(hidden, self.weight, self.bias, eps=self.eps)  # type: ignore[return-value]

    def add(self, change: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Add a block's change to the hidden states, both (..., width); return the sum normalised, and the sum."""
        return ck.layer_norm(change, self.weight, self.bias, eps=self.eps, residual=hidden)  # type: ignore[return-value]


class RMSNorm(nn.RMSNorm):
    """Division of the last dimension by its root mean square, with a gain; computes in fp32, keeps the input's dtype.

    Source: arXiv:1910.07467, changed: nothing.

    Args:
        width: size of the last dimension.
        eps: added to the mean square.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps=eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> the same, normalised."""
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        return F.rms_norm(wide, self.weight.shape, self.weight, self.eps).to(hidden.dtype)

    def add(self, change: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Add a block's change to the hidden states, both (..., width); return the sum normalised, and the sum."""
        total = change + hidden
        return self(total), total


Norm = LayerNorm | RMSNorm


class NoNorm(nn.Module):
    """Stands where a model has no norm."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> the same."""
        return hidden

    def add(self, change: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Add a block's change to the hidden states, both (..., width); return the sum twice."""
        total = change + hidden
        return total, total


class FusedLinear(nn.Linear):
    """Several linear layers that read the same input, as one product.

    Args:
        width: width of the input.
        splits: output width of each layer, which is the number of its rows in the weight. Optimizers that treat each
            matrix by itself read it.
        bias: whether the layers have biases.
    """

    def __init__(self, width: int, splits: tuple[int, ...], bias: bool = False) -> None:
        super().__init__(width, sum(splits), bias=bias)
        self.splits = splits


class PlainMLP(nn.Module):
    """Projection to the inner width, GELU, and back, with biases.

    Source: arXiv:1810.04805, changed: nothing.

    Args:
        width: width of the hidden states.
        mlp_width: inner width.
    """

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, mlp_width)
        self.down = nn.Linear(mlp_width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        result: Tensor = self.down(F.gelu(self.up(hidden)))
        return result


def make_dropout(share: float) -> nn.Module:
    """Make the layer that leaves out a share of its input while the model is in training mode; nothing for 0."""
    return nn.Dropout(share) if share else nn.Identity()


class GatedMLP(nn.Module):
    """One wide projection whose first half gates the second half, then one back to the model's width; no biases.

    Source: arXiv:2002.05202 (GeGLU and SwiGLU).

    Args:
        width: width of the hidden states.
        mlp_width: width of each half.
        gate: `ck.geglu` or `ck.swiglu`, (..., 2 * mlp_width) -> (..., mlp_width).
    """

    def __init__(self, width: int, mlp_width: int, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._gate = gate
        self.up = FusedLinear(width, (mlp_width, mlp_width))
        self.down = nn.Linear(mlp_width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        result: Tensor = self.down(self._gate(self.up(hidden)))
        return result
