"""The memory that a recipe needs at the very least, and the refusal of one that needs more than there is."""

import torch

from cram.config.config import Config
from cram.config.model import ModelConfig
from cram.errors import CramError
from cram.machine.device import total_memory
from cram.model.count import count_parameters


def check_memory(config: Config, device: torch.device) -> None:
    """Errors: CramError where the model, or one forward pass of it, takes more than the memory there is for certain."""
    model, there = config.model, total_memory(device)
    if there is None:
        return
    kept = training_bytes(count_parameters(model, config.wordpiece.vocab_size).total)
    if kept > there:
        raise CramError(
            f"model.layers={model.layers}, model.width={model.width}, wordpiece.vocab_size="
            f"{config.wordpiece.vocab_size}: weights, gradients and optimizer take {kept / 1e9:,.1f} GB, and "
            f"{device.type} has {there / 1e9:,.1f} GB. Choose a smaller model."
        )
    rows = min(config.batch.micro_rows or 1, max(1, config.batch.tokens // config.data.seq_len))
    needed = kept + activation_bytes(model, rows, config.data.seq_len)
    if needed > there:
        raise CramError(
            f"data.seq_len={config.data.seq_len}, batch.micro_rows={rows}: with model.layers={model.layers}, "
            f"model.width={model.width}, model.mlp_width={model.mlp_width} one forward pass takes more than "
            f"{needed / 1e9:,.1f} GB, and {device.type} has {there / 1e9:,.1f} GB. Lower one of these."
        )


def activation_bytes(config: ModelConfig, rows: int, seq_len: int) -> int:
    """Bytes that a forward pass keeps for its gradients at the very least.

    Of each block the input, queries, keys and values, and both halves of the MLP, of two bytes each; of explicit
    attention the weights too.
    """
    scores = config.heads * seq_len if config.attention == "softmax" else 0
    return 2 * rows * seq_len * config.layers * (4 * config.width + 2 * config.mlp_width + scores)


def training_bytes(parameters: int) -> int:
    """Bytes of weights, gradients and two moments of so many parameters, fp32 each; activations come on top."""
    return 16 * parameters
