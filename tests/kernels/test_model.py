"""A training step of the model with each implementation of the kernels."""

import pytest
import torch

from cram.config.model import ModelConfig
from cram.model.encoder import Encoder
from cram_kernels._launch import launch_counts
from cram_kernels._triton import HAS_TRITON


def step(model: Encoder, precision: torch.dtype, device: torch.device) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the loss and the gradients of a packed batch."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, 64, (4, 16), generator=generator).to(device)
    documents = (torch.arange(16) >= torch.tensor([16, 3, 9, 12])[:, None]).int().to(device)
    slots = torch.tensor([1, 5, 17, 20, 40, 63], device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = model.head.loss(model(tokens, documents, slots), tokens.flatten()[slots]) / len(slots)
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
@pytest.mark.parametrize("attention", ["sdpa", "softmax"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_each_implementation_gives_the_same_loss_and_gradients(
    attention: str, precision: torch.dtype, device: torch.device, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "reference":
        pytest.skip("Triton runs on a GPU, or in its interpreter")
    config = ModelConfig(layers=2, width=32, heads=2, mlp_width=48, zero_init=False, init_std=0.2, attention=attention)  # type: ignore[arg-type]
    model = Encoder(config, 64)
    model.initialise(seed=0)
    model.to(device)
    results, before = {}, launch_counts.copy()
    for implementation in ("reference", "triton"):
        monkeypatch.setenv("CRAM_KERNELS", implementation)
        results[implementation] = step(model, precision, device)
    ops = ("layer_norm", "gated", "rope", "linear_cross_entropy", *(["softmax"] if attention == "softmax" else []))
    assert all(any(op in kernel for kernel in launch_counts - before) for op in ops)
    # bf16 keeps eight bits of each product, and the implementations round at different places.
    tolerance = 1e-4 if precision == torch.float32 else 5e-2
    torch.testing.assert_close(results["triton"][0], results["reference"][0], atol=tolerance, rtol=tolerance)
    for triton_grad, reference_grad in zip(results["triton"][1], results["reference"][1], strict=True):
        scale = float(reference_grad.abs().max())
        torch.testing.assert_close(triton_grad, reference_grad, atol=tolerance * scale, rtol=tolerance)
