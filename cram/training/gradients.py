"""The gradients of one update: micro-batches, out of memory, clipping, and whether everything is finite."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cram.errors import CramError
from cram.machine.device import is_out_of_memory, is_readable
from cram.training.noise_scale import NoiseProbe
from cram.training.session import Session, UpdateSession

Result = TypeVar("Result")


def choice_seed(session: Session, what: str) -> int:
    """Compute the seed of some random choices of the next update, so that a resumed run makes the same ones.

    It is hashed, because the generator of a CPU reads 32 bits of it only.

    Args:
        what: names the choices, so that different ones are independent.
    """
    digest = hashlib.sha256(f"{what} {session.config.seed} {session.clock.updates}".encode()).digest()
    return int.from_bytes(digest[:7], "little")


def seed_dropout(session: Session) -> None:
    """Seed torch's generators for the dropout of the next update. Nothing happens without dropout."""
    if session.config.dropout:
        torch.manual_seed(choice_seed(session, "dropout"))


def model_rows(session: UpdateSession, rows: Any, progress: float) -> int:
    """Count the rows of the model that rows of the data become at some progress."""
    count: int = -(-len(rows.tokens) // session.parts.objective.rows_joined(progress))
    return count


def begin_probe(session: Session, rows: int) -> NoiseProbe | None:
    """Begin a measurement of the gradient noise in the next update, of so many rows of the model, if one is due."""
    state = session.state
    return state.noise_scale.begin(
        update=session.clock.updates + 1,
        rows=rows,
        seq_len=session.parts.seq_len,
        micro_rows=state.micro_rows,
        compiled=_is_compiled(session),
        cuda_graphs=state.compiled.get("cuda_graphs", False),
    )


def _is_compiled(session: UpdateSession) -> bool:
    return bool(session.state.compiled.get("kind", "eager") != "eager")


def accumulate(
    session: UpdateSession, rows: Any, progress: float, probe: NoiseProbe | None = None, seed: int = 0
) -> tuple[int, torch.Tensor]:
    """Compute the gradients of the loss of one update: the sum over all predicted tokens divided by their count.

    The count is that of all micro-batches together, so that the size of a micro-batch changes rounding alone.

    Args:
        probe: where the gradient noise is measured; it watches the micro-batches.
        seed: of the blocks that layer dropping leaves out.

    Returns:
        The number of predicted tokens, and the sum of their nats, an fp32 scalar on the device.

    Raises:
        CramError: where one row does not fit into memory.
    """
    return retry_within_memory(session, lambda: _accumulate(session, rows, progress, probe, seed))


def retry_within_memory(session: UpdateSession, compute: Callable[[], Result]) -> Result:
    """Compute gradients; running out of memory halves the micro-batch and starts again.

    Raises:
        CramError: where one row does not fit into memory.
    """
    executed = session.parts.work.state()
    while True:
        try:
            return compute()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            session.parts.work.load(executed)
            halve_micro_batch(session)


def _accumulate(
    session: UpdateSession, rows: Any, progress: float, probe: NoiseProbe | None, seed: int
) -> tuple[int, torch.Tensor]:
    parts, micro = session.parts, session.state.micro_rows
    micro = min(micro, probe.micro_rows) if probe else micro
    joined, left = parts.objective.rows_joined(progress), model_rows(session, rows, progress)
    batches = [parts.objective.prepare(part, progress) for part in micro_batches(rows, micro * joined)]
    predicted = sum(batch.predicted for batch in batches)
    nats = torch.zeros((), device=parts.device)
    with ExitStack() as contexts:
        # One context for all micro-batches: leaving it throws away the weights that were cast for it.
        contexts.enter_context(autocast(session))
        if probe:
            factor = parts.loss_scale.factor(parts.device) if parts.loss_scale else 1.0
            contexts.enter_context(probe.watch(parts.model, [batch.predicted for batch in batches], factor))
        if micro < session.state.micro_rows and _is_compiled(session):
            # Compiled code knows micro-batches of one size. Another size is not worth compiling for.
            contexts.enter_context(eagerly())
        for number, batch in enumerate(batches):
            parts.methods.depth(parts.model, progress, seed + number)
            nats += backward(session, batch, 1.0 / max(predicted, 1))
            parts.work.add_pass("training", parts.model.computed_blocks, min(micro, left - number * micro))
    return predicted, nats


def micro_batches(rows: Any, micro: int) -> Iterator[Any]:
    """Cut rows into micro-batches; the last one may be smaller."""
    return (rows[begin : begin + micro] for begin in range(0, len(rows.tokens), micro))


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the context."""
    model.eval()
    try:
        yield
    finally:
        model.train()


@torch.no_grad()
def nats_per_row(session: UpdateSession, rows: Any, progress: float) -> tuple[torch.Tensor, npt.NDArray[np.int64]]:
    """Compute, in a forward pass without gradients, the nats of each row and the number of its predicted tokens.

    Returns:
        nats: fp32 (rows,) on the device. predicted: int64 [rows].
    """
    parts, objective = session.parts, session.parts.objective
    batches = [objective.prepare(part, progress) for part in micro_batches(rows, session.state.micro_rows)]
    predicted = np.concatenate([objective.predicted_per_row(batch) for batch in batches])
    with autocast(session), in_evaluation_mode(parts.model):
        nats = [objective.nats_per_row(parts.model, batch.to(parts.device)) for batch in batches]
        parts.work.add_pass("forward", parts.model.computed_blocks, len(predicted), overhead=True)
    return torch.cat(nats), predicted


def autocast(session: UpdateSession) -> torch.autocast:
    """Give the context that has the precision of the forward pass."""
    precision = session.parts.precision
    return torch.autocast(session.parts.device.type, precision, enabled=precision != torch.float32)


def eagerly() -> Any:
    """Give a context in which compiled modules run eagerly, and nothing is compiled."""
    return torch.compiler.set_stance("force_eager")


def backward(session: UpdateSession, batch: Any, scale: float) -> torch.Tensor:
    """Run the forward and backward pass of one micro-batch on its loss times `scale`.

    Returns:
        The summed nats of the micro-batch, detached.
    """
    parts = session.parts
    on_device = batch.to(parts.device)
    with autocast(session):
        loss = parts.objective.loss(parts.model, on_device)
    with torch.autocast(parts.device.type, enabled=False):
        if parts.loss_scale:
            parts.loss_scale.backward(loss * scale)
        else:
            (loss * scale).backward()
    return loss.detach()


def halve_micro_batch(session: UpdateSession) -> None:
    """Halve the micro-batch after running out of memory.

    Raises:
        CramError: where the micro-batch is one row already.
    """
    session.parts.model.zero_grad(set_to_none=True)
    if session.state.micro_rows == 1:
        raise CramError(
            f"one row of {session.parts.seq_len} tokens does not fit in the memory of this device. "
            "Use a smaller model (model.layers, model.width) or data.seq_len."
        )
    session.state.micro_rows = session.state.micro_rows // 2
    session.state.out_of_memory += 1
    if session.parts.device.type == "cuda":
        torch.cuda.empty_cache()
    print(f"warning: out of memory; the micro-batch is now {session.state.micro_rows} rows.", flush=True)


class Clipped(NamedTuple):
    """What is known of the gradients of an update, as scalars on the device.

    norm: fp32, of all gradients together, before clipping. finite: bool, whether the loss and all gradients are finite.
    """

    norm: torch.Tensor
    finite: torch.Tensor


def clip(session: UpdateSession, nats: torch.Tensor, probe: NoiseProbe | None = None) -> Clipped:
    """Undo the loss scale, and scale the gradients down to the clipping norm if their norm is larger.

    Args:
        probe: where the gradient noise is measured; it is told the norm before clipping.

    Returns:
        The norm before clipping, and whether the loss and all gradients are finite.
    """
    if session.parts.loss_scale:
        session.parts.loss_scale.unscale()
    gradients = [parameter.grad for parameter in session.parts.model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if probe:
        probe.record_whole(norm)
    limit = session.config.clip
    if limit is not None and not (is_readable(norm) and norm <= limit):
        # Not torch's `clip_grad_norm_`, which adds 1e-6 to the norm: too much beside a small one.
        torch._foreach_mul_(gradients, limit / norm.clamp(min=limit))
    return Clipped(norm, torch.isfinite(norm) & torch.isfinite(nats))
