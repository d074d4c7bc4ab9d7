"""The gradients of one update: micro-batches, clipping, and whether all is finite."""

from typing import Any

import torch
from torch import nn

from cram.errors import CramError
from cram.machine.device import is_out_of_memory
from cram.training.session import Session


def accumulate(session: Session, rows: Any, progress: float) -> tuple[int, torch.Tensor]:
    """Leave in the gradients the sum over predicted tokens divided by their count over all micro-batches.

    Out of memory halves the micro-batch and starts this update again.
    Returns: predicted tokens, and the sum of their nats as a tensor on the device.
    """
    while True:
        try:
            return _accumulate(session, rows, progress)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            halve_micro_batch(session)


def _accumulate(session: Session, rows: Any, progress: float) -> tuple[int, torch.Tensor]:
    micro = session.micro_rows
    count = len(rows.tokens)
    batches = [session.objective.prepare(rows[begin : begin + micro], progress) for begin in range(0, count, micro)]
    predicted = sum(batch.predicted for batch in batches)
    nats = torch.zeros((), device=session.device)
    # One context for all of them, because leaving it throws away the weights that were cast for it.
    with autocast(session):
        for batch in batches:
            nats += backward(session, batch, 1.0 / max(predicted, 1))
    return predicted, nats


def autocast(session: Session) -> torch.autocast:
    """The forward pass's precision."""
    return torch.autocast(session.device.type, session.precision, enabled=session.precision != torch.float32)


def backward(session: Session, batch: Any, scale: float) -> torch.Tensor:
    """Forward and backward of one micro-batch; returns its summed nats, detached."""
    on_device = batch.to(session.device)
    with autocast(session):
        loss = session.objective.loss(session.model, on_device)
    with torch.autocast(session.device.type, enabled=False):
        if session.loss_scale:
            session.loss_scale.backward(loss * scale)
        else:
            (loss * scale).backward()
    return loss.detach()


def halve_micro_batch(session: Session) -> None:
    """Answer to running out of memory. Errors: CramError when one row does not fit."""
    session.model.zero_grad(set_to_none=True)
    if session.micro_rows == 1:
        raise CramError(
            f"one row of {session.seq_len} tokens does not fit in the memory of this device. "
            "Use a smaller model (model.layers, model.width) or data.seq_len."
        )
    session.micro_rows = session.micro_rows // 2
    session.out_of_memory += 1
    if session.device.type == "cuda":
        torch.cuda.empty_cache()
    print(f"warning: out of memory; the micro-batch is now {session.micro_rows} rows.", flush=True)


def clip(session: Session, nats: torch.Tensor) -> torch.Tensor:
    """Bring the gradients to their true size and at most the clipping norm.

    Returns: bool scalar on the device, whether the loss and all gradients are finite.
    """
    if session.loss_scale:
        session.loss_scale.unscale()
    gradients = [parameter.grad for parameter in session.model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if session.clip is not None:
        # Without torch's 1e-6 beside the norm, which would be most of a small one.
        torch._foreach_mul_(gradients, session.clip / norm.clamp(min=session.clip))
    return torch.isfinite(norm) & torch.isfinite(nats)
