"""The small parts of a block: LayerNorm and the gated MLP."""

from torch import Tensor, nn

import cram_kernels as ck


class LayerNorm(nn.LayerNorm):
    """Layer normalisation of the last dimension with a gain, and a bias if wanted; keeps the input's dtype.

    A `torch.nn.LayerNorm`, so that optimizers find it by its type.
    """

    def __init__(self, width: int, eps: float, bias: bool = False) -> None:
        super().__init__(width, eps=eps, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> the same, normalised."""
        return ck.layer_norm(hidden, self.weight, self.bias, eps=self.eps)  # type: ignore[return-value]

    def add(self, change: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Add a block's change to the hidden states, both (..., width): the sum normalised, and the sum."""
        return ck.layer_norm(change, self.weight, self.bias, eps=self.eps, residual=hidden)  # type: ignore[return-value]


class GatedMLP(nn.Module):
    """gelu(first half) * second half of one wide projection, then back to the model's width; no biases.

    Source: arXiv:2002.05202 (GeGLU).
    """

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * mlp_width, bias=False)
        self.down = nn.Linear(mlp_width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.down(ck.geglu(self.up(hidden)))
