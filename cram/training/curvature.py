"""The pass in which an optimizer of second order estimates the curvature of the loss."""

from typing import Any

import torch
from torch import nn

from cram.training.gradients import autocast, choice_seed, eagerly, micro_batches, retry_within_memory
from cram.training.session import RankSession


def curvature_is_due(session: RankSession) -> bool:
    """Whether the optimizer wants an estimate before the next update."""
    interval = session.parts.optimizer.curvature_interval
    return interval is not None and session.clock.updates % interval == 0


def estimate_curvature(session: RankSession, rows: Any, progress: float) -> None:
    """Give the optimizer the gradients of the mean loss of labels that are drawn from the model's predictions.

    The pass takes the first rows of the next update, a share of them on each rank, and all blocks. It is a training
    pass of the table of reference time, and overhead.

    Args:
        rows: of this rank.

    Raises:
        CramError: where one row does not fit into memory.
    """
    parts = session.parts
    parts.model.active = None  # blocks that the latest micro-batch left out
    predicted = retry_within_memory(session, lambda: _backward_of_drawn_labels(session, rows, progress))
    if parts.loss_scale:
        parts.loss_scale.unscale()
        parts.loss_scale.update()
    gradients = [parameter.grad for parameter in parts.model.parameters() if parameter.grad is not None]
    if not session.ranks.alone:
        gradients = parts.optimizer.gradients(parts.model)
    norm = session.ranks.sum(nn.utils.get_total_norm(gradients))
    parts.optimizer.take_curvature(predicted, torch.isfinite(norm))
    parts.model.zero_grad(set_to_none=True)


def _backward_of_drawn_labels(session: RankSession, rows: Any, progress: float) -> int:
    """Add up the gradients, and return the number of the labels of all ranks."""
    parts, ranks, micro = session.parts, session.ranks, session.state.micro_rows
    share = -(-(parts.optimizer.curvature_rows or micro * ranks.size) // ranks.size)
    batches = [parts.objective.prepare(part, progress) for part in micro_batches(rows[0:share], micro)]
    predicted: int = sum(ranks.gather(sum(batch.predicted for batch in batches)))
    generator = torch.Generator(parts.device).manual_seed(choice_seed(session, f"curvature{ranks.rank or ''}"))
    for batch in batches:
        # Another graph than that of training, and not worth compiling for a pass now and then.
        with eagerly(), autocast(session):
            nats = parts.objective.sampled_loss(parts.model, batch.to(parts.device), generator)
        loss = nats / max(predicted, 1)
        with torch.autocast(parts.device.type, enabled=False):
            if parts.loss_scale:
                parts.loss_scale.backward(loss)
            else:
                loss.backward()
        parts.work.add_pass(
            "training", parts.model.computed_blocks, batch.inputs.numel() // parts.seq_len * ranks.size, overhead=True
        )
    return predicted
