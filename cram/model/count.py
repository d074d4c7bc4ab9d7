"""How large a model is, and what a position costs: for sizes, throughput and MFU."""

from dataclasses import dataclass

from cram.config.model import ModelConfig


@dataclass(frozen=True)
class Parameters:
    """Parameter counts: all of them, and those outside the embedding (which is also the decoder)."""

    total: int
    without_embedding: int


def body_weights(config: ModelConfig) -> int:
    """Weights of the blocks' matrices: 4 width^2 of attention and 3 width * mlp_width of MLP, a layer."""
    return config.layers * (4 * config.width**2 + 3 * config.width * config.mlp_width)


def count_parameters(config: ModelConfig, vocab_size: int) -> Parameters:
    """Parameters of a model of this kind and shape, the tied embedding counted once."""
    # Encoder: two norms a block but one in the first, and embedding, final and head norm.
    norms = (2 * config.layers + 2) * config.width
    if config.kind == "crammed":
        norms = 2 * norms + 1  # as many, the head's being the first block's, each with a bias; the scale of positions
    elif config.kind == "decoder":
        # Two norms a block and the final one, without biases; those of queries and keys, shared by a layer's heads.
        norms = (2 * config.layers + 1) * config.width + 2 * config.layers * (config.width // config.heads)
    without = body_weights(config) + _dense_weights(config) + norms
    return Parameters(total=without + vocab_size * config.width, without_embedding=without)


def _dense_weights(config: ModelConfig) -> int:
    """Weights of the head's dense layer, which the encoder alone has."""
    return config.width**2 if config.kind == "encoder" else 0


def flops_per_position(config: ModelConfig, vocab_size: int, seq_len: int, predicted_share: float) -> float:
    """Floating-point operations of forward and backward pass for each position that enters the model.

        6 * body + 6 * head * predicted_share + 12 * layers * width * seq_len

    body: weights of the blocks' matrices; head: its dense layer, width^2 or none, and width * vocab_size, applied to
    `predicted_share` of the positions; last term: scores and their use over seq_len positions. Each weight costs a
    multiplication and an addition, once forward and twice backward. What is skipped at positions that are not
    predicted counts as done, and so do a decoder's scores of positions that it may not see.

    Source: arXiv:2204.02311 appendix B (PaLM), changed: the head counts at predicted positions only.
    """
    head = _dense_weights(config) + config.width * vocab_size
    return 6 * body_weights(config) + 6 * head * predicted_share + 12 * config.layers * config.width * seq_len
