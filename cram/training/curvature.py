"""The pass in which an optimizer of second order estimates the curvature of the loss."""

from typing import Any

import torch
from torch import nn

from cram.training.gradients import autocast, choice_seed, eagerly, micro_batches
from cram.training.session import Session


def curvature_is_due(session: Session) -> bool:
    """Whether the optimizer wants an estimate before the next update."""
    interval = session.parts.optimizer.curvature_interval
    return interval is not None and session.clock.updates % interval == 0


def estimate_curvature(session: Session, rows: Any, progress: float) -> None:
    """Give the optimizer the gradients of the mean loss of labels that are drawn from the model's predictions.

    The pass takes one micro-batch of the rows. It is a training pass of the table of reference time, and overhead.
    """
    parts = session.parts
    batch = parts.objective.prepare(next(micro_batches(rows, session.state.micro_rows)), progress)
    generator = torch.Generator(parts.device).manual_seed(choice_seed(session, "curvature"))
    with eagerly(), autocast(session):
        loss = parts.objective.sampled_loss(parts.model, batch.to(parts.device), generator) / max(batch.predicted, 1)
    with torch.autocast(parts.device.type, enabled=False):
        if parts.loss_scale:
            parts.loss_scale.backward(loss)
            parts.loss_scale.unscale()
            parts.loss_scale.update()
        else:
            loss.backward()
    parts.work.add_pass("training", parts.model.computed_blocks, len(batch.inputs), overhead=True)
    gradients = [parameter.grad for parameter in parts.model.parameters() if parameter.grad is not None]
    parts.optimizer.take_curvature(batch.predicted, torch.isfinite(nn.utils.get_total_norm(gradients)))
    parts.model.zero_grad(set_to_none=True)
