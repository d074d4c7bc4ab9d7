"""cross_entropy against torch's."""

import pytest
import torch
from torch.nn import functional as F

import cram_kernels as ck


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_values_and_gradients(reduction: str, label_smoothing: float, z_loss: float) -> None:
    logits = torch.randn(7, 9, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, -100, 8, 3, 3, -100, 1])
    losses = F.cross_entropy(logits, target, label_smoothing=label_smoothing, reduction="none")
    losses = losses + (target != -100) * z_loss * logits.logsumexp(-1).square()
    wanted = {"none": losses, "sum": losses.sum(), "mean": losses.sum() / 5}[reduction]
    ours = ck.cross_entropy(logits, target, label_smoothing=label_smoothing, z_loss=z_loss, reduction=reduction)
    torch.testing.assert_close(ours, wanted)
    upstream = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(ours, logits, upstream)[0], torch.autograd.grad(wanted, logits, upstream)[0]
    )


def test_half_precision_gives_fp32_and_no_valid_row_gives_nan() -> None:
    logits = torch.randn(3, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert ck.cross_entropy(logits, torch.tensor([1, 2, 3])).dtype == torch.float32
    assert ck.cross_entropy(logits, torch.full((3,), -100)).isnan()


def test_bad_reduction() -> None:
    with pytest.raises(ValueError, match="reduction"):
        ck.cross_entropy(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), reduction="median")
