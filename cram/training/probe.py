"""Two short measurements before training, both charged to the budget: what fits, and how fast it is."""

import statistics
import time

import torch

from cram.config.config import Config
from cram.errors import CramError
from cram.machine.device import is_out_of_memory, synchronize
from cram.terminal.progress import format_tokens
from cram.training.gradients import backward, halve_micro_batch
from cram.training.loop import wanted_rows
from cram.training.session import Loader, Session

# A CPU gains nothing from more positions at once, and its caches lose.
CPU_POSITIONS = 4096
PROBE_SECONDS = 1.0
HEADROOM = 0.9  # share of the GPU's memory a micro-batch may fill: evaluation and fragments need some


def check_one_batch(loader: Loader, config: Config) -> None:
    """Errors: CramError where the data does not hold the largest update."""
    tokens = max(config.batch.tokens, config.batch.start_tokens or 0)
    there = loader.rows_total * config.data.seq_len
    if there < tokens:
        raise CramError(
            f"the corpus is too small for one batch: {there:,} tokens there, batch.tokens asks for {tokens:,}.\n"
            "Give more text (data.source=), or lower batch.tokens."
        )


def find_micro_rows(session: Session, wanted: int | None) -> None:
    """Set the micro-batch: as told, or the largest power of two that fits memory and one update's batch."""
    most = max(1, round(session.parts.batch_tokens(1.0) / session.parts.seq_len))
    most = min(most, session.parts.loader.rows_total)
    if wanted is not None:
        session.state.micro_rows = max(1, min(wanted, most))
    elif session.parts.device.type == "cpu":
        session.state.micro_rows = _power_of_two(min(most, max(1, CPU_POSITIONS // session.parts.seq_len)))
    else:
        with session.clock.account("probe"):
            session.state.micro_rows = _largest_that_fits(session, _power_of_two(most))


def _largest_that_fits(session: Session, most: int) -> int:
    """Double the rows until memory is short; the weights' gradients and moments are counted in."""
    total = torch.cuda.get_device_properties(session.parts.device).total_memory
    parameters = sum(p.numel() for p in session.parts.model.parameters())
    moments = 2 * 4 * parameters
    rows = 1
    while rows < most:
        torch.cuda.reset_peak_memory_stats(session.parts.device)
        try:
            _one_pass(session, 2 * rows)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            session.parts.model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            break
        if torch.cuda.max_memory_allocated(session.parts.device) + moments > HEADROOM * total:
            break
        rows *= 2
    return rows


def measure_pace(session: Session) -> None:
    """Teach the clock the seconds per position: one warming pass, then passes for about a second.

    The first pass is booked to `compilation` (kernels and buffers are made then), the rest to `probe`.
    """
    with session.clock.account("compilation"):
        _pass_or_halve(session)
    with session.clock.account("probe"):
        paces: list[float] = []
        end = time.monotonic() + PROBE_SECONDS
        while not paces or time.monotonic() < end:
            began = time.monotonic()
            _pass_or_halve(session)
            paces.append((time.monotonic() - began) / (session.state.micro_rows * session.parts.seq_len))
    # The median, which a pass that was held up does not move.
    session.clock.learn_pace(statistics.median_low(paces))


def _pass_or_halve(session: Session) -> None:
    try:
        _one_pass(session, session.state.micro_rows)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        halve_micro_batch(session)


def _one_pass(session: Session, rows: int) -> None:
    """Forward and backward on rows that are only looked at; the gradients are thrown away."""
    batch = session.parts.objective.prepare(session.parts.loader.peek(rows), 0.0)
    backward(session, batch, 1.0)
    session.parts.model.zero_grad(set_to_none=True)
    synchronize(session.parts.device)


def _power_of_two(most: int) -> int:
    """The largest power of two that is not above `most`."""
    return 1 << (most.bit_length() - 1)


def rows_needed(session: Session) -> int:
    """Rows that the whole budget would consume, whatever the data holds."""
    clock = session.clock
    if clock.budget.clock == "tokens":
        return round(clock.budget.limit / session.parts.seq_len)
    if clock.budget.clock == "wall":
        left = clock.budget.limit - clock.charged()
        return session.parts.loader.rows_taken + round(
            left / (clock.seconds_per_position or 1.0) / session.parts.seq_len
        )
    return sum(wanted_rows(session, step / clock.budget.limit) for step in range(int(clock.budget.limit)))


def data_report(session: Session, needed: int, tokens: int) -> str:
    """One or two lines: tokens there, tokens needed, and what to do where they do not suffice."""
    there = session.parts.loader.rows_total
    share = there / max(needed, 1)
    about = float(f"{tokens / share:.2g}")
    line = f"data: {format_tokens(tokens)} tokens there, about {format_tokens(about)} needed for the budget"
    if share >= 1.0:
        return line + "."
    return (
        f"{line}: it will run out at about {share:.0%} of the budget, and the schedule lands there.\n"
        f"To use it all: give more text (data.source=, data.tokens=), or allow data.epochs={-(-needed // there)}."
    )
