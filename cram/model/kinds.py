"""From the word of `model.kind` to a model."""

from cram.config.choices import MODELS
from cram.config.model import ModelConfig
from cram.model.transformer import Transformer


def new_model(config: ModelConfig, vocab_size: int) -> Transformer:
    """Build the model of `model.kind` on the current default device; its weights have no values yet."""
    model: Transformer = MODELS[config.kind].load()(config, vocab_size)
    return model
