"""How large a model is, and how many operations a position costs: for sizes, memory, throughput and MFU."""

from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from cram.config.choices import MODELS
from cram.config.model import ModelConfig
from cram.model.kinds import new_model
from cram.model.transformer import Transformer


@dataclass(frozen=True)
class Parameters:
    """Parameter counts of a model.

    Attributes:
        total: all parameters, the tied embedding counted once.
        without_embedding: all but the embedding, which is also the output weight.
        body: weights of the matrices that all positions pass: those of the blocks, and few others.
        head: weights of the head's own matrices, without the output weight.
    """

    total: int
    without_embedding: int
    body: int
    head: int


def count_parameters(config: ModelConfig, vocab_size: int) -> Parameters:
    """Count the parameters of the model of `config`, built without memory."""
    return _count(astuple(config), vocab_size)


@lru_cache(maxsize=1024)
def _count(config: tuple[Any, ...], vocab_size: int) -> Parameters:
    """Count them for a config that is given as its values; kept, because a plan asks for hundreds of models again."""
    model = _model_without_memory(config, vocab_size)
    total = sum(parameter.numel() for parameter in model.parameters())
    return Parameters(
        total=total,
        without_embedding=total - model.embedding.weight.numel(),
        body=sum(map(_matrix_weights, [*(body.blocks for body in model.bodies()), *model.further_layers()])),
        head=_matrix_weights(model.head),
    )


def flops_per_position(config: ModelConfig, vocab_size: int, seq_len: int, predicted_share: float) -> float:
    """Floating-point operations of forward and backward pass for each position that enters the model.

        6 * body + 6 * head * predicted_share + 12 * layers * width * seq_len

    body: weights of the matrices that all positions pass, in all transformers of the model. head: weights of the
    head's matrices and width * vocab_size, applied to `predicted_share` of the positions. Last term, summed over these
    transformers: attention scores and their use over seq_len positions; 0 for a model without attention. Each weight
    costs a multiplication and an addition, once forward and twice backward. Operations that are skipped at positions
    that are not predicted count as done, and so do a decoder's scores of positions that it may not see.

    Source: arXiv:2204.02311 appendix B (PaLM), changed: the head counts at predicted positions only.
    """
    counts = count_parameters(config, vocab_size)
    head = counts.head + config.width * vocab_size
    bodies = _model_without_memory(astuple(config), vocab_size).bodies()
    widths = sum(body.config.width for body in bodies)
    scores = 12 * config.layers * widths * seq_len if MODELS[config.kind].attention else 0
    return 6 * counts.body + 6 * head * predicted_share + scores


def model_figures(config: ModelConfig, vocab_size: int, seq_len: int, predicted_share: float) -> dict[str, Any]:
    """Give the sizes in the receipt of a run: parameters, and floating-point operations for each position."""
    parameters = count_parameters(config, vocab_size)
    return {
        "parameters": parameters.total,
        "parameters_without_embedding": parameters.without_embedding,
        "flops_per_position": flops_per_position(config, vocab_size, seq_len, predicted_share),
    }


def matrix_shapes(config: ModelConfig, vocab_size: int) -> list[tuple[int, int]]:
    """List rows and columns of all matrices of blocks and head, those of a fused weight one by one."""
    shapes = []
    for layer in _model_without_memory(astuple(config), vocab_size).modules():
        if isinstance(layer, nn.Linear):
            rows, columns = layer.weight.shape
            shapes += [(part, columns) for part in getattr(layer, "splits", (rows,))]
    return shapes


@lru_cache(maxsize=4)
def _model_without_memory(config: tuple[Any, ...], vocab_size: int) -> Transformer:
    """Build the model of a config, given as its values; kept, because several figures of one model are asked for."""
    with torch.device("meta"):
        return new_model(ModelConfig(*config), vocab_size)


def _matrix_weights(module: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))
