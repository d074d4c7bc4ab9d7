"""Floating-point operations of what a run has executed: the axis that compares runs of different machines and sizes."""

from dataclasses import replace

from cram.config.model import ModelConfig
from cram.model.count import flops_per_position
from cram.reference_time import FORWARD, TRAINING, Counts, ExecutedWork

# Operations of a pass relative to one forward and backward: the backward pass costs twice the forward pass.
_SHARES = {TRAINING: 1.0, FORWARD: 1.0 / 3.0}


class FlopCount:
    """Counts the operations of executed passes by the formula of `cram.model.count.flops_per_position`.

    That formula is linear in the predicted tokens, so that the blocks and the head are counted apart: the blocks by the
    rows of the passes, the head by the predicted tokens.

    Args:
        config: of the model.
        vocab_size: rows of its embedding.
        seq_len: tokens of a row.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, seq_len: int) -> None:
        self._config, self._vocab_size, self._seq_len = config, vocab_size, seq_len
        self._of_position: dict[str, float] = {}  # by number of blocks; kept, because metrics ask at each update

    def of_blocks(self, counts: Counts) -> float:
        """Operations of the passes of `ExecutedWork.main` or `overhead`, the head left out."""
        return sum(
            share * rows * self._seq_len * self._position(blocks)
            for kind, share in _SHARES.items()
            for blocks, rows in counts.get(kind, {}).items()
        )

    def training(self, work: ExecutedWork, predicted: int) -> float:
        """Operations of all training passes of a run that has predicted so many tokens."""
        return self.of_blocks(work.main) + predicted * self.of_prediction

    def executed(self, work: ExecutedWork, predicted: int, positions: int) -> float:
        """Operations of all passes of a run, those that its methods add included.

        The added passes are taken to predict the same share of their positions as training does.

        Args:
            predicted: tokens that training predicted.
            positions: positions that training passed, padding included.
        """
        rows = sum(share * sum(work.overhead.get(kind, {}).values()) for kind, share in _SHARES.items())
        of_heads = rows * self._seq_len * predicted / max(positions, 1) * self.of_prediction
        return self.training(work, predicted) + self.of_blocks(work.overhead) + of_heads

    @property
    def of_prediction(self) -> float:
        """Operations that the head spends on a predicted token."""
        if "head" not in self._of_position:
            self._of_position["head"] = self._compute(self._config.layers, 1.0) - self._compute(
                self._config.layers, 0.0
            )
        return self._of_position["head"]

    def _position(self, blocks: str) -> float:
        """Operations of a position in so many blocks, without the head. No block counts as one."""
        if blocks not in self._of_position:
            self._of_position[blocks] = self._compute(max(1, int(blocks)), 0.0)
        return self._of_position[blocks]

    def _compute(self, layers: int, predicted_share: float) -> float:
        return flops_per_position(
            replace(self._config, layers=layers), self._vocab_size, self._seq_len, predicted_share
        )
