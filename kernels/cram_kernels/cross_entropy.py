"""Cross-entropy of logits against class indices, with label smoothing and z-loss.

    lse_i  = log sum_j exp(x_ij)
    loss_i = (1 - e) * (lse_i - x_i,target) + e * (lse_i - mean_j x_ij) + z * lse_i^2

for smoothing e and z-loss coefficient z; computed in fp32 for half-precision inputs.

Source: label smoothing arXiv:1512.00567 section 7, z-loss arXiv:2204.02311 section 5.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy_reference(
    logits: Tensor, target: Tensor, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str
) -> Tensor:
    """Cross-entropy of logits (N, classes) and target (N), in fp32 or wider."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(wide)
        losses = F.cross_entropy(
            logits, target, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="none"
        )
        valid = target != ignore_index
        if z_loss:
            losses = losses + torch.where(valid, z_loss * torch.logsumexp(logits, -1).square(), 0.0)
        if reduction == "none":
            return losses
        return losses.sum() if reduction == "sum" else losses.sum() / valid.sum()


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy in nats.

    Args:
        logits: (N, classes), any floating dtype.
        target: int64 (N), class indices or `ignore_index`.
        ignore_index: target of the rows that count nothing.
        label_smoothing: share of the target spread evenly over the classes.
        z_loss: coefficient of the squared log-partition, added per valid row.
        reduction: "none", "sum", or "mean" over the valid rows (NaN if there is none, as torch's).

    Returns:
        fp32 (fp64 for fp64 logits): (N) for "none", else a scalar.

    Raises:
        ValueError: for another reduction.
    """
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be none, sum or mean, not {reduction!r}")
    return cross_entropy_reference(logits, target, ignore_index, label_smoothing, z_loss, reduction)
