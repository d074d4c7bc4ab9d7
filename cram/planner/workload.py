"""The work of an update of a shape, counted: operations, numbers in memory, and what is done once a layer or update."""

from dataclasses import dataclass
from functools import cache

import torch

from cram.config.config import Config
from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.machine.device import pick_precision, total_memory
from cram.model.backends.choose import BACKENDS, choose_backend
from cram.model.count import count_parameters, flops_per_position, matrix_shapes
from cram.objectives.masked import mask_rate
from cram.planner.memory import activation_bytes, training_bytes
from cram.planner.micro_batch import cpu_micro_rows, power_of_two
from cram.planner.shape import Shape

TIMED_PROGRESS = 0.5  # where updates are timed; the mask rate, which is linear, has its mean here
HEADROOM = 0.9  # share of the memory that may be planned for; evaluation and fragmentation need the rest
# `activation_bytes` counts the least that any back-end keeps; norms, rotations and casts keep more.
ACTIVATION_MARGIN = 3


def predicted_share(config: ObjectiveConfig, progress: float) -> float:
    """Return the share of the positions that are predicted at some progress: all of them while training is causal."""
    if config.kind == "causal" or progress < config.causal_share:
        return 1.0
    return mask_rate(config)((progress - config.causal_share) / (1.0 - config.causal_share))


@dataclass(frozen=True)
class Workload:
    """All that the shapes of a plan have in common: the recipe, the vocabulary and the device.

    Attributes:
        config: the recipe; a shape replaces the size of its model and of its updates.
        vocab_size: rows of the embedding.
        device_type: torch's, `cpu` or `cuda`.
        keeps_scores: whether attention keeps its weights, seq_len for each position and head.
        memory: bytes of the device, None if unknown.
    """

    config: Config
    vocab_size: int
    device_type: str
    keeps_scores: bool = False
    memory: int | None = None

    @classmethod
    def of(cls, config: Config, vocab_size: int, device: torch.device) -> "Workload":
        """Take the device into account that is here.

        Raises:
            CramError: the attention of the config cannot run on it.
        """
        precision = pick_precision(config.precision, device)
        backend = BACKENDS[choose_backend(config.model.attention, device, precision)]
        return cls(config, vocab_size, device.type, backend.keeps_weights, total_memory(device))

    def rows(self, shape: Shape) -> int:
        """Return the rows of an update: whole micro-batches, as many as are nearest to its tokens."""
        micro = self.micro_rows(shape)
        return max(1, round(shape.batch_tokens / (micro * self.config.data.seq_len))) * micro

    def micro_rows(self, shape: Shape) -> int:
        """Return the rows of a micro-batch, which a run would choose by the same rule, or on a GPU by trial."""
        seq_len, requested = self.config.data.seq_len, self.config.batch.micro_rows
        most = max(1, round(shape.batch_tokens / seq_len))
        if requested is not None:
            return min(requested, most)
        if self.device_type == "cpu":
            return cpu_micro_rows(most, seq_len)
        if self.memory is None:
            return power_of_two(most)
        left = HEADROOM * self.memory - training_bytes(self.parameters(shape))
        rows = int(left / (ACTIVATION_MARGIN * activation_bytes(self._model(shape), 1, seq_len)))
        return power_of_two(max(1, min(most, rows)))

    def parameters(self, shape: Shape) -> int:
        """Return the number of all parameters of a shape."""
        return self._size(shape).parameters

    def memory_bytes(self, shape: Shape) -> int:
        """Return the least bytes that a shape needs: weights, gradients, optimizer and one micro-batch."""
        activations = activation_bytes(self._model(shape), self.micro_rows(shape), self.config.data.seq_len)
        return training_bytes(self.parameters(shape)) + activations

    def fits(self, shape: Shape) -> bool:
        """Whether the device has the memory that a shape needs; True if its memory is unknown."""
        return self.memory is None or self.memory_bytes(shape) <= HEADROOM * self.memory

    def share(self, progress: float = TIMED_PROGRESS) -> float:
        """Return the share of the positions that are predicted at some progress."""
        return predicted_share(self.config.objective, progress)

    def counts(self, shape: Shape, share: float) -> dict[str, float]:
        """Count what an update does, by the names that a cost model has.

        Args:
            share: the share of the positions that are predicted.

        Returns:
            products: FLOPs of the matrix products of forward and backward pass.
            logits: logits that are made.
            activations: numbers that the blocks keep for their gradients, attention weights with them if it keeps them.
            orthogonalisation: FLOPs of Muon's products, as many as its steps need on the shorter side of each matrix.
            parameters: all parameters, whose gradients and optimizer state are read and written.
            layers: blocks times micro-batches, each of which starts a fixed number of operations.
            update: 1.
        """
        size, optimizer = self._size(shape), self.config.optimizer
        rows, seq_len = self.rows(shape), self.config.data.seq_len
        positions = rows * seq_len
        scores = shape.heads * seq_len if self.keeps_scores else 0
        return {
            "products": positions * (size.body + share * size.head),
            "logits": positions * share * self.vocab_size,
            "activations": positions * shape.layers * (8 * shape.width + 4 * shape.mlp_width + scores),
            "orthogonalisation": size.newton_schulz * optimizer.muon.mean_steps() * (optimizer.kind == "muon"),
            "parameters": size.parameters,
            "layers": shape.layers * rows / self.micro_rows(shape),
            "update": 1.0,
        }

    def _model(self, shape: Shape) -> ModelConfig:
        return shape.apply(self.config).model

    def _size(self, shape: Shape) -> "_Size":
        config = self.config
        fields = (shape.layers, shape.width, shape.heads, shape.mlp_width)
        return _size(config.model.kind, *fields, self.vocab_size, config.data.seq_len)


@dataclass(frozen=True)
class _Size:
    """What is counted on a model.

    Attributes:
        parameters: all of them.
        body: FLOPs of a position that is not predicted, forward and backward.
        head: FLOPs that are added where a position is predicted.
        newton_schulz: FLOPs of one Newton-Schulz step for all matrices.
    """

    parameters: int
    body: float
    head: float
    newton_schulz: int


@cache
def _size(kind: str, layers: int, width: int, heads: int, mlp_width: int, vocab_size: int, seq_len: int) -> _Size:
    model = ModelConfig(kind=kind, layers=layers, width=width, heads=heads, mlp_width=mlp_width)
    body, whole = (flops_per_position(model, vocab_size, seq_len, share) for share in (0.0, 1.0))
    # x x^T, its square, and its product with x, where the rows of x are its shorter side.
    sides = [sorted(shape) for shape in matrix_shapes(model, vocab_size)]
    newton_schulz = sum(4 * short * short * long + 2 * short**3 for short, long in sides)
    return _Size(count_parameters(model, vocab_size).total, body, whole - body, newton_schulz)
