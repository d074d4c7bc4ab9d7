"""A method of your own: freeze the embedding late in training, and stop its gradients.

A method is a subclass of `cram.methods.method.Method` that overrides one or two named points of an update. It is driven
by progress, the spent share of the budget from 0 to 1, so that it works for every budget. Train `runs/mine` first, so
that the data is there: python -m cram.train recipe=bert_demo run=runs/mine
"""

from typing import Any

from torch import nn

import cram
from cram.methods.method import Method


class FreezeEmbedding(Method):
    """Leaves the embedding as it is from some progress on.

    Args:
        start: progress, in [0, 1], from which the embedding does not change.
    """

    name = "freeze_embedding"

    def __init__(self, start: float) -> None:
        self.start = start

    def before_update(self, model: nn.Module, optimizer: Any, progress: float) -> None:
        """Stop the embedding's gradients; the optimizer skips a parameter without one."""
        model.get_parameter("embedding.weight").requires_grad_(progress < self.start)


def main() -> None:
    """Train with the method, and print what the receipt says."""
    run = cram.fit(
        "bert_demo",
        budget="75s",
        run="runs/frozen",
        data={"source": "texts/*.txt", "document": "blank_line"},
        methods=[FreezeEmbedding(start=0.5)],
    )
    print(run.receipt["methods"], f"{run.receipt['held_out']['nats_per_token']:.3f} nats per token")


if __name__ == "__main__":
    main()
