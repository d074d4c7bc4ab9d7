"""From the word of `model.kind` to a model."""

import torch

from cram.config.choices import MODELS
from cram.config.model import ModelConfig
from cram.model.transformer import Transformer


def new_model(config: ModelConfig, vocab_size: int) -> Transformer:
    """Build the model of `model.kind` on the current default device; its weights have no values yet."""
    model: Transformer = MODELS[config.kind].load()(config, vocab_size)
    return model


def build_model(config: ModelConfig, vocab_size: int, seed: int, device: torch.device) -> Transformer:
    """Build the model of `model.kind` with the initial weights of a seed, on a device."""
    model = new_model(config, vocab_size)
    model.initialise(seed)
    return model.to(device)
