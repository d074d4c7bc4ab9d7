"""The gradients of one update: micro-batches, out of memory, clipping, and whether everything is finite."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cram.distributed.shares import places_of
from cram.errors import CramError
from cram.machine.device import is_out_of_memory, is_readable
from cram.training.noise_scale import NoiseProbe
from cram.training.session import RankSession, UpdateSession

Result = TypeVar("Result")


def choice_seed(session: RankSession, what: str) -> int:
    """Compute the seed of some random choices of the next update, so that a resumed run makes the same ones.

    It is hashed, because the generator of a CPU reads 32 bits of it only.

    Args:
        what: names the choices, so that different ones are independent.
    """
    digest = hashlib.sha256(f"{what} {session.config.seed} {session.clock.updates}".encode()).digest()
    return int.from_bytes(digest[:7], "little")


def seed_dropout(session: RankSession) -> None:
    """Seed torch's generators for the dropout of the next update, each rank's by itself. No dropout, no seed."""
    if session.config.dropout:
        torch.manual_seed(choice_seed(session, f"dropout{session.ranks.rank or ''}"))


def model_rows(session: UpdateSession, rows: Any, progress: float) -> int:
    """Count the rows of the model that rows of the data become at some progress."""
    count: int = -(-len(rows.tokens) // session.parts.objective.rows_joined(progress))
    return count


def begin_probe(session: RankSession, rows: int) -> NoiseProbe | None:
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

    Each rank computes the gradients of its own rows. Those of all ranks are added up while the last micro-batch is
    computed, and each rank then has those of its share of the parameters.

    Args:
        rows: of this rank.
        probe: where the gradient noise is measured; it watches the micro-batches.
        seed: of the blocks that layer dropping leaves out.

    Returns:
        The number of predicted tokens of all ranks, and the sum of the nats of this rank's, an fp32 scalar on the
        device.

    Raises:
        CramError: where one row does not fit into memory.
    """
    return retry_within_memory(session, lambda: _accumulate(session, rows, progress, probe, seed))


def retry_within_memory(session: UpdateSession, compute: Callable[[], Result]) -> Result:
    """Compute gradients; running out of memory on any rank halves the micro-batch and starts again on all.

    Raises:
        CramError: where one row does not fit into memory.
    """
    executed = session.parts.work.state()
    while True:
        result = None
        try:
            result = compute()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        failed = result is None
        if not session.ranks.alone:
            failed = session.parts.optimizer.collect(failed)
        if result is not None and not failed:
            return result
        session.parts.work.load(executed)
        halve_micro_batch(session)


def _accumulate(
    session: UpdateSession, rows: Any, progress: float, probe: NoiseProbe | None, seed: int
) -> tuple[int, torch.Tensor]:
    parts, ranks, micro = session.parts, session.ranks, session.state.micro_rows
    micro = min(micro, probe.micro_rows) if probe else micro
    joined = parts.objective.rows_joined(progress)
    batches = [parts.objective.prepare(part, progress) for part in micro_batches(rows, micro * joined)]
    # Of all ranks: predicted tokens and rows of the model, by micro-batch.
    counts = ranks.gather([[batch.predicted for batch in batches], model_rows(session, rows, progress)])
    predicted = sum(sum(of_rank) for of_rank, _ in counts)
    left = sum(rows_of_rank for _, rows_of_rank in counts)
    nats = torch.zeros((), device=parts.device)
    with ExitStack() as contexts:
        # One context for all micro-batches: leaving it throws away the weights that were cast for it.
        contexts.enter_context(autocast(session))
        if probe:
            factor = parts.loss_scale.factor(parts.device) if parts.loss_scale else 1.0
            contexts.enter_context(probe.watch(parts.model, [one for of_rank, _ in counts for one in of_rank], factor))
        if micro < session.state.micro_rows and _is_compiled(session):
            # Compiled code knows micro-batches of one size. Another size is not worth compiling for.
            contexts.enter_context(eagerly())
        for number, batch in enumerate(batches):
            ranks.enter(ranks.state[0])
            parts.methods.depth(parts.model, progress, seed + number)
            is_last = number == len(batches) - 1 and not ranks.alone
            with parts.optimizer.overlap() if is_last else nullcontext():
                nats += backward(session, batch, 1.0 / max(predicted, 1))
            step = micro * ranks.size
            parts.work.add_pass("training", parts.model.computed_blocks, min(step, left - number * step))
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

    Args:
        rows: of all ranks, each of which computes its share.

    Returns:
        nats: fp32 (rows,) on the device. predicted: int64 [rows].
    """
    ranks = session.ranks
    if ranks.alone:
        return _nats_per_row(session, rows, progress, len(rows.tokens))
    nats = torch.zeros(len(rows.tokens), device=session.parts.device)
    predicted = torch.zeros(len(rows.tokens), dtype=torch.int64)
    places = places_of(len(rows.tokens), session.state.micro_rows, ranks.rank, ranks.size)
    if len(places):
        own, own_predicted = _nats_per_row(session, rows[places], progress, len(rows.tokens))
        at = torch.from_numpy(places)
        nats[at.to(nats.device)], predicted[at] = own, torch.from_numpy(own_predicted)
    return ranks.sum(nats), ranks.sum(predicted).numpy()


def _nats_per_row(
    session: UpdateSession, rows: Any, progress: float, total: int
) -> tuple[torch.Tensor, npt.NDArray[np.int64]]:
    """See `nats_per_row`; these are the rows of this rank, of so many of all ranks."""
    parts, objective = session.parts, session.parts.objective
    batches = [objective.prepare(part, progress) for part in micro_batches(rows, session.state.micro_rows)]
    predicted = np.concatenate([objective.predicted_per_row(batch) for batch in batches])
    with autocast(session), in_evaluation_mode(parts.model):
        nats = [objective.nats_per_row(parts.model, batch.to(parts.device)) for batch in batches]
        parts.work.add_pass("forward", parts.model.computed_blocks, total, overhead=True)
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
    """What is known of the gradients of an update, of all ranks together, as scalars on the device.

    norm: fp32, of all gradients together, before clipping. finite: bool, whether the loss and all gradients are finite.
    nats: fp32, the sum of the nats.
    """

    norm: torch.Tensor
    finite: torch.Tensor
    nats: torch.Tensor


def clip(session: UpdateSession, nats: torch.Tensor, probe: NoiseProbe | None = None) -> Clipped:
    """Undo the loss scale, and scale the gradients down to the clipping norm if their norm is larger.

    Args:
        nats: of this rank, an fp32 scalar on the device.
        probe: where the gradient noise is measured; it is told the norm before clipping.

    Returns:
        The norm before clipping, whether the loss and all gradients are finite, and the nats of all ranks.
    """
    parts = session.parts
    if parts.loss_scale:
        parts.loss_scale.unscale()
    if session.ranks.alone:
        gradients = [parameter.grad for parameter in parts.model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
    else:
        gradients = parts.optimizer.gradients(parts.model)
        norm, nats = _add_up(session, gradients, nats, probe)
    if probe:
        probe.record_whole(norm)
    limit = session.config.clip
    if limit is not None and not (is_readable(norm) and norm <= limit):
        # Not torch's `clip_grad_norm_`, which adds 1e-6 to the norm: too much beside a small one.
        torch._foreach_mul_(gradients, limit / norm.clamp(min=limit))
    return Clipped(norm, torch.isfinite(norm) & torch.isfinite(nats), nats)


def _add_up(
    session: UpdateSession, gradients: list[torch.Tensor], nats: torch.Tensor, probe: NoiseProbe | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add up what each rank knows of its share: the norm of all gradients, the nats, and the norms of the probe."""
    own = nn.utils.get_total_norm(gradients).to(nats.device)
    norms = probe.norms if probe else []  # of this rank's micro-batches
    figures = torch.stack([own.double().square(), nats.double(), *(norm.double().square() for norm in norms)])
    norm, total, *of_probe = session.ranks.sum(figures)
    if probe:
        probe.norms = [square.sqrt().float() for square in of_probe]
    return norm.sqrt().float(), total.float()
