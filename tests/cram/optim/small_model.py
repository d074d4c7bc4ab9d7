"""A small model with one layer of each group, and gradients that are a function of the step alone."""

import torch
from safetensors.torch import save
from torch import nn

from cram.training.protocols import OptimizerProtocol


def build(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Build an embedding, a linear layer and a norm."""
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.to(dtype)


def set_gradients(model: nn.Module, step: int) -> None:
    """Set gradients that are a function of the step alone."""
    generator = torch.Generator().manual_seed(1000 + step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def as_bytes(model: nn.Module, optimizer: OptimizerProtocol) -> tuple[bytes, bytes]:
    """Give weights and state as bytes."""
    return save(model.state_dict()), save(optimizer.state_tensors())
