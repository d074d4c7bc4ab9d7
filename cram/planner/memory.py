"""The least memory that a recipe needs, and a check that the machine has it."""

import torch

from cram.config.choices import MODELS
from cram.config.config import Config
from cram.config.model import ModelConfig
from cram.errors import CramError
from cram.machine.device import total_memory
from cram.model.backends.choose import BACKENDS
from cram.model.count import count_parameters


def check_memory(config: Config, device: torch.device) -> None:
    """Check that the device has the least memory that training needs; nothing is checked if its memory is unknown.

    Raises:
        CramError: the weights with their gradients and optimizer state, or these and one forward pass, need more.
    """
    model, available = config.model, total_memory(device)
    if available is None:
        return
    state = training_bytes(count_parameters(model, config.wordpiece.vocab_size).total)
    if state > available:
        raise CramError(
            f"model.layers={model.layers}, model.width={model.width}, wordpiece.vocab_size="
            f"{config.wordpiece.vocab_size}: weights, gradients and optimizer take {state / 1e9:,.1f} GB, and "
            f"{device.type} has {available / 1e9:,.1f} GB. Choose a smaller model."
        )
    rows = min(config.batch.micro_rows or 1, max(1, config.batch.tokens // config.data.seq_len))
    needed = state + activation_bytes(model, rows, config.data.seq_len)
    if needed > available:
        raise CramError(
            f"data.seq_len={config.data.seq_len}, batch.micro_rows={rows}: with model.layers={model.layers}, "
            f"model.width={model.width}, model.mlp_width={model.mlp_width} one forward pass takes more than "
            f"{needed / 1e9:,.1f} GB, and {device.type} has {available / 1e9:,.1f} GB. Lower one of these."
        )


def activation_bytes(config: ModelConfig, rows: int, seq_len: int) -> int:
    """Return the least bytes that a forward pass keeps for its gradients.

    These are, for each block, the input, queries, keys and values, and both halves of the MLP, with two bytes per
    number; with some attention back-ends also the attention weights. Of an LSTM they are the input, the four gates and
    the state.
    """
    if not MODELS[config.kind].attention:
        return 2 * rows * seq_len * config.layers * 6 * config.width
    keeps_weights = config.attention != "auto" and BACKENDS[config.attention].keeps_weights
    scores = config.heads * seq_len if keeps_weights else 0
    return 2 * rows * seq_len * config.layers * (4 * config.width + 2 * config.mlp_width + scores)


def training_bytes(parameters: int) -> int:
    """Return the bytes of so many parameters with their gradients and two moments, all in fp32, without activations."""
    return 16 * parameters
